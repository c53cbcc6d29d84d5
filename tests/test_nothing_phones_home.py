"""No door of the package, and no library that it loads, looks up a name or reaches for a host.

Each door (doors.py) is taken in a process of its own, in a network of its own where the system
allows that (network_watch.py). Elsewhere an audit hook sees what Python does, and that the switch
of each library is set before its import; what native code sends is not seen then.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# ONNX Runtime 1.31 looks its collector up about 8 s after its import.
STAYS_S = 12
NAMESPACE = "unshare --net --mount --pid --fork --kill-child --mount-proc".split()
# Set by CI machines, which keeps ONNX Runtime quiet, or by whoever runs the tests.
UNSET = set(
    "CI TF_BUILD GITHUB_ACTIONS GITLAB_CI CIRCLECI TRAVIS JENKINS_URL CODEBUILD_BUILD_ID "
    "BUILDKITE TEAMCITY_VERSION APPVEYOR DO_NOT_TRACK ORT_DISABLE_TELEMETRY "
    "HF_HUB_DISABLE_TELEMETRY HF_HUB_OFFLINE DISABLE_SAFETENSORS_CONVERSION "
    "HAYSTACK_TELEMETRY_ENABLED RAY_USAGE_STATS_ENABLED".split()
)
# A library that reports, as of its import, its switch, and the switch's positions that mean "off".
SWITCHES = {
    "onnxruntime": ("ORT_DISABLE_TELEMETRY", {"1"}),
    "huggingface_hub": ("HF_HUB_DISABLE_TELEMETRY", {"1"}),
    "haystack.telemetry": ("HAYSTACK_TELEMETRY_ENABLED", {"false"}),
}
# Loaded by every Python process of a door, children included.
HOOK = f"""
import os, sys
VARIABLES = { {library: switch for library, (switch, _) in SWITCHES.items()} }
def hook(event, given):
    seen = None
    if event == "import" and given[0] in VARIABLES:
        seen = "imported", given[0], os.environ.get(VARIABLES[given[0]], "")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        seen = "looked_up", given[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(given[1], tuple):
        seen = "reached", given[1][0]
    if seen is not None:
        with open(os.environ["WATCH_LOG"], "a", encoding="utf-8") as log:
            log.write(repr(seen) + "\\n")
sys.addaudithook(hook)
"""


@dataclass(frozen=True)
class Seen:
    """What was seen of a door.

    imported: (library, position of its switch at the import), of every process
    """

    code: int
    output: str
    looked_up: set[str]
    reached: set[str]
    imported: set[tuple[str, str]]


@contextmanager
def door(
    name: str, folder: Path, *, alone: bool, stays_s: float = STAYS_S, **variables: str
) -> Iterator["subprocess.Popen[str]"]:
    """Start taking a door; `alone`: in a network of its own."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK)
    inherited = {k: v for k, v in os.environ.items() if k not in UNSET and "proxy" not in k.lower()}
    homes = dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"), str(folder))
    paths = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "WATCH_LOG": str(folder / "log")}
    command = [sys.executable, str(ROOT / "tests/doors.py"), name, str(stays_s), str(folder)]
    if alone:
        watch = [sys.executable, str(ROOT / "tests/network_watch.py"), str(folder / "report.json")]
        command = [*NAMESPACE, *([] if os.geteuid() == 0 else ["--map-root-user"]), *watch, *command]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**inherited, **homes, **paths, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process


def seen(process: "subprocess.Popen[str]", folder: Path, *, alone: bool) -> Seen:
    """Wait for a door's process and return what it did."""
    output, _ = process.communicate(timeout=280)
    log = folder / "log"
    lines = [ast.literal_eval(line) for line in log.read_text().splitlines()] if log.exists() else []
    report = {kind: {str(line[1]) for line in lines if line[0] == kind} for kind in ("looked_up", "reached")}
    if alone and process.returncode == 0:
        report = json.loads((folder / "report.json").read_text())
    return Seen(process.returncode, output, set(report["looked_up"]), ...)

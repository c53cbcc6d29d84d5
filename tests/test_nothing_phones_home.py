"""No door of the package, and no library that it loads, looks up a name or reaches for a host.

Each door (network_doors.py) is taken in a process of its own, and in a network of its own where the
system allows that (network_watch.py). Elsewhere an audit hook sees what Python does and whether
each switch is set before the import of its library; what native code sends is not seen then.
"""

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest

from tests.network_watch import ANSWER

ROOT = Path(__file__).parent.parent
WATCH, DOORS = ROOT / "tests/network_watch.py", ROOT / "tests/network_doors.py"
# ONNX Runtime 1.31 looks its collector up about 8 s after its import.
STAYS_S = 12
NAMESPACE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# Set on CI machines, where ONNX Runtime is quiet, or by whoever runs the tests.
UNSET = """
CI TF_BUILD GITHUB_ACTIONS GITLAB_CI CIRCLECI TRAVIS JENKINS_URL CODEBUILD_BUILD_ID BUILDKITE
TEAMCITY_VERSION APPVEYOR DO_NOT_TRACK ORT_DISABLE_TELEMETRY HF_HUB_DISABLE_TELEMETRY HF_HUB_OFFLINE
HF_ENDPOINT HAYSTACK_TELEMETRY_ENABLED RAY_USAGE_STATS_ENABLED
"""
# Loaded by every Python process behind a door.
HOOK = """
import os, sys
SWITCHES = {
    "onnxruntime": "ORT_DISABLE_TELEMETRY",
    "huggingface_hub": "HF_HUB_DISABLE_TELEMETRY",
    "haystack.telemetry": "HAYSTACK_TELEMETRY_ENABLED",
    "ray.dashboard": "RAY_USAGE_STATS_ENABLED",
}
def hook(event, given):
    seen = None
    if event == "import" and given[0] in SWITCHES:
        seen = "imported", given[0], os.environ.get(SWITCHES[given[0]], "unset")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        seen = "looked_up", given[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(given[1], tuple):
        seen = "reached", given[1][0]
    if seen is not None:
        with open(os.environ["WATCH_LOG"], "a", encoding="utf-8") as log:
            log.write(repr(seen) + "\\n")
sys.addaudithook(hook)
"""
# Names and addresses that a door may reach for: what docs/what-it-contacts.md says.
CONTACTS = {
    "hub": {"huggingface.co", f"{ANSWER}:443"},
    # Ray's dashboard asks which cloud it is in, whatever the switch of its reports says.
    "ray": {"metadata.google.internal", "169.254.169.254:80", "169.254.169.254", f"{ANSWER}:80"},
}
IMPORTS = {
    "hub": {("huggingface_hub", "1")},
    "doctor": {("huggingface_hub", "1"), ("onnxruntime", "1")},
    "haystack": {("haystack.telemetry", "false"), ("onnxruntime", "1")},
}
TAKEN = ("library", "run", "doctor", "hub", "serve", "demo")
TAKEN += ("haystack", "langchain", "llama-index")
WANTED, KEPT_ON = "library, wanted", {"ORT_DISABLE_TELEMETRY": "0"}


@dataclass(frozen=True)
class Taken:
    """A door that was taken, and what was seen of it.

    contacts: names looked up and addresses reached for, loopback left out
    imported: (library, position of its switch at the import), from every process
    """

    output: str
    code: int
    contacts: set[str]
    imported: set[tuple[str, str]]
    stored: list[Path] = field(default_factory=list)


def outside(host: object) -> bool:
    """True if a name or an address leads, or may lead, out of this machine."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in {None, "", "localhost", platform.node()}:
        return False
    try:
        address = ip_address(str(host))
    except ValueError:
        return True
    return not (address.is_loopback or address.is_unspecified)


class Door:
    """A process that takes a door; `alone`: in a network of its own."""

    def __init__(
        self, name: str, folder: Path, *, alone: bool, stays_s: int = STAYS_S, **variables: str
    ) -> None:
        self.folder, self.alone = folder, alone
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HOOK)
        command = [sys.executable, str(DOORS), name, str(stays_s), str(folder)]
        if alone:
            command = in_namespace(folder / "report.json", command)
        unset = UNSET.split()
        kept = {k: v for k, v in os.environ.items() if not (k in unset or "proxy" in k.lower())}
        homes = dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"), folder)
        paths = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "WATCH_LOG": folder / "log"}
        own = {name: str(value) for name, value in (homes | paths | variables).items()}
        self._output = (folder / "output").open("w+")
        self.process = subprocess.Popen(
            command, cwd=folder, env=kept | own, stdout=self._output, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()

    def taken(self) -> Taken:
        """Wait for the process's end and return what was seen."""
        code = self.process.wait(280)
        log = self.folder / "log"
        log.touch()
        seen = [ast.literal_eval(line) for line in log.read_text(encoding="utf-8").splitlines()]
        contacts = {str(what[0]) for kind, *what in seen if kind != "imported" and outside(what[0])}
        report = self.folder / "report.json"
        if report.exists():
            contacts = {one for found in json.loads(report.read_text()).values() for one in found}
        imported = {(what[0], what[1]) for kind, *what in seen if kind == "imported"}
        self._output.seek(0)
        stored = list(self.folder.rglob("onnxruntime.db"))
        return Taken(self._output.read(), code, contacts, imported, stored)


def in_namespace(report: Path, command: list[str]) -> list[str]:
    """Return a command that runs another one in a network of its own."""
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [*NAMESPACE, *mapped, sys.executable, str(WATCH), str(report), *command]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """True if this system gives a process a network of its own."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "ip", "mount"))):
        return False
    report = tmp_path_factory.mktemp("namespace") / "report.json"
    tried = subprocess.run(in_namespace(report, ["true"]), capture_output=True, check=False)
    return tried.returncode == 0


@pytest.fixture(scope="module")
def doors(alone: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Door]]:
    """Take all doors at once: most of their time is spent in waiting for late reports."""
    folder = tmp_path_factory.mktemp("doors")
    # Without a network of its own, this machine stands in for the hub.
    variables = {} if alone else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    with ExitStack() as opened:
        yield {
            name: opened.enter_context(Door(name, folder / name, alone=alone, **variables))
            for name in TAKEN
        } | {WANTED: opened.enter_context(Door("library", folder / WANTED, alone=alone, **KEPT_ON))}


@pytest.mark.parametrize("name", TAKEN)
def test_a_door_contacts_nobody_else(name: str, doors: dict[str, Door]) -> None:
    """Nothing but what the page of contacts lists; every library is imported switched off."""
    found = doors[name].taken()
    assert found.code == 0, found.output[-4000:]
    assert found.contacts <= CONTACTS.get(name, set())
    assert found.imported >= IMPORTS.get(name, {("onnxruntime", "1")})
    assert {position for library, position in found.imported if library == "onnxruntime"} <= {"1"}
    assert found.stored == []


@pytest.mark.slow
def test_ray_contacts_nobody_else(alone: bool, tmp_path: Path) -> None:
    """A served model and a reranked dataset on a cluster of this machine."""
    hasty = {
        "RAY_USAGE_STATS_REPORT_INTERVAL_S": "2",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    with Door("ray", tmp_path / "ray", alone=alone, **hasty) as door:
        found = door.taken()
    assert found.code == 0, found.output[-4000:]
    assert found.contacts <= CONTACTS["ray"]
    assert {one for one in found.imported if one[0] == "onnxruntime"} == {("onnxruntime", "1")}
    assert {one for one in found.imported if one[0] == "ray.dashboard"} == {("ray.dashboard", "0")}
    assert found.stored == []


def test_the_watch_sees_what_goes_out(
    alone: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Look-ups and connections of Python; those of native code in a network of one's own."""
    with Door("control", tmp_path / "control", alone=alone, stays_s=0) as door:
        found = door.taken()
    expected = {"python.invalid", "203.0.113.9"}
    if alone:
        expected = {"python.invalid", "native.invalid", "203.0.113.9:443"}
    assert found.contacts == expected
    with capsys.disabled():
        by = "each in a network of its own" if alone else "by an audit hook: native code unseen"
        sys.stdout.write(f"\ndoors are watched {by}\n")


def test_who_wants_the_telemetry_keeps_it(alone: bool, doors: dict[str, Door]) -> None:
    """The user's own setting is left alone; then ONNX Runtime's store and look-up can be seen."""
    found = doors[WANTED].taken()
    assert found.code == 0, found.output[-4000:]
    assert found.imported == {("onnxruntime", "0")}
    if alone:
        assert len(found.stored) == 1
        assert "mobile.events.data.microsoft.com" in found.contacts


@pytest.mark.parametrize(
    ("library", "door"),
    [("onnxruntime", "scoring/runtime/ort.py"), ("huggingface_hub", "scoring/models/hub.py")],
)
def test_a_library_that_reports_has_one_door(library: str, door: str) -> None:
    """Only one module of the package imports it, except for type checkers."""
    package = ROOT / "rerank_plugins"
    importing = {
        path.relative_to(package).as_posix()
        for folder in (package, ROOT / "adapters")
        for path in folder.rglob("*.py")
        if library in imports(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert importing == {door}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level packages that a module imports when it runs, wherever in it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]
        else:
            yield from imports(node)

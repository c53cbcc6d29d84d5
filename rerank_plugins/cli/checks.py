"""Checks of an installation: what is there, which models would run, whether they work."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..config import build
from ..config.schema import Settings, StageSettings
from ..config.vector_schema import EncoderSettings
from ..core.stage import Stage
from ..errors import RerankError
from ..reranker import Reranker
from ..rules.residency import Policy
from ..scoring import Scorer, Sends
from ..scoring.models import hub
from ..scoring.models.content import Listed
from ..scoring.models.files import cpu_features
from ..scoring.models.registry import KNOWN
from ..scoring.onnx.graph import cache
from ..scoring.onnx.options import usable_tokens
from ..scoring.onnx.scorer import OnnxScorer
from ..scoring.runtime import process
from ..scoring.runtime.ort import VARIABLE as ORT_TELEMETRY
from ..scoring.runtime.ort import onnxruntime

Verdict: TypeAlias = Literal["ok", "warn", "fail"]
_LIBRARIES = ("rerank-plugins", "onnxruntime", "numpy", "tokenizers", "huggingface-hub")

# What each extra brings; where the first is missing, the extra was not asked for.
EXTRAS: Mapping[str, Sequence[str]] = {
    "aws": ("botocore",),
    "http2": ("h2",),
    "eval": ("ir_measures", "bm25s", "Stemmer", "matplotlib"),
    "otel": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    "server": (
        "starlette",
        "uvicorn",
        "msgspec",
        "opentelemetry.exporter.prometheus",
        "prometheus_client",
    ),
    "ray": ("ray", "starlette", "uvicorn", "msgspec", "opentelemetry.exporter.prometheus"),
    "export": ("torch", "transformers", "onnxscript"),
}
# The packages of each framework: our adapter, and what it adapts to.
ADAPTERS: Mapping[str, tuple[str, str]] = {
    "langchain": ("langchain-rerank-plugins", "langchain-core"),
    "llama-index": ("llama-index-postprocessor-rerank-plugins", "llama-index-core"),
    "haystack": ("rerank-plugins-haystack", "haystack-ai"),
}

_VECTOR = ("avx512_vnni", "avx_vnni", "avx512f", "avx2", "arm64")
_QUERY = "how long do cats sleep"

_PASSAGES = (
    "The city council voted on Tuesday to repave the bridge across the river.",
    "Cats sleep for twelve to sixteen hours a day, kittens and old cats even longer.",
)


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, what was found, and whether it is fine."""

    name: str
    verdict: Verdict
    found: str


def examine(settings: Settings) -> Iterator[Check]:
    """Look at the installation, then load and try every model that `settings` names."""
    yield _python()
    for name in _LIBRARIES:
        yield _library(name)
    yield _adapters()
    yield _cpu()
    yield _workers(settings)
    available = onnxruntime().get_available_providers()
    providers = [name.removesuffix("ExecutionProvider") for name in available]
    yield Check("providers", "ok", ", ".join(providers))
    yield _telemetry()
    yield _hub()
    yield _graphs()
    policy = settings.policy.policy()
    for place, stage in enumerate(settings.stages):
        yield from _model(f"stage {place + 1}", stage, policy)
    yield _whole(settings)
    # Last: what these libraries start could disturb the trials.
    yield from _extras()


def _python() -> Check:
    fine = sys.version_info >= (3, 11)
    return Check("python", "ok" if fine else "fail", platform.python_version())


def _library(name: str) -> Check:
    if (found := version(name)) is not None:
        return Check(name, "ok", found)
    return Check(name, "warn", "runs from a source tree; it is not installed as a package")


def _cpu() -> Check:
    found = [name for name in _VECTOR if name in cpu_features()]
    count = f"{os.cpu_count()} cores"
    if not found:
        return Check("cpu", "warn", f"{count}, no known vector extension: models run slowly")
    return Check("cpu", "ok", f"{count}, {', '.join(found)}")


def _workers(settings: Settings) -> Check:
    asked = settings.service.workers
    why = "one per core that this process may use" if asked is None else "set by service.workers"
    inside = ", ".join(str(stage.intra_threads) for stage in settings.stages)
    found = f"{asked or process.cores()}, {why}; threads inside an operator: {inside}"
    return Check("workers", "ok", found)


def _adapters() -> Check:
    versions = {name: [version(package) for package in ADAPTERS[name]] for name in ADAPTERS}
    found = "; ".join(
        f"{name}: adapter {adapter or 'not installed'}, framework {framework or 'not installed'}"
        for name, (adapter, framework) in versions.items()
    )
    return Check("adapters", "ok", found)


def version(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _telemetry() -> Check:
    """Return what ONNX Runtime, already imported, may report to its maker."""
    setting = os.environ.get(ORT_TELEMETRY, "")
    found = "off" if setting == "1" else f"on, since {ORT_TELEMETRY} is {setting!r} here"
    return Check("telemetry of onnxruntime", "ok", found)


def _extras() -> Iterator[Check]:
    """Import what the installed extras need."""
    hub.switch_off_reports()
    here = [extra for extra, modules in EXTRAS.items() if _installed(modules[0])]
    missing = [extra for extra in EXTRAS if extra not in here]
    found = f"installed: {', '.join(here) or 'none'}"
    yield Check("extras", "ok", f"{found}; not: {', '.join(missing)}" if missing else found)
    for extra in here:
        if faults := [fault for module in EXTRAS[extra] if (fault := _import_fault(module))]:
            remedy = f"run: pip install 'rerank-plugins[{extra}]'"
            yield Check(f"extra {extra}", "warn", f"{'; '.join(faults)}; {remedy}")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _import_fault(module: str) -> str:
    """Return why a module cannot be imported, "" where it can."""
    try:
        with warnings.catch_warnings(action="ignore"):
            importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a broken library may raise anything
        return f"{module} is missing" if not _installed(module) else f"{module}: {error}"
    return ""


def _hub() -> Check:
    folder, offline = hub.local_cache()
    held = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    mode = (
        "the hub is never asked (HF_HUB_OFFLINE)"
        if offline
        else "the hub is asked for others (not tried here)"
    )
    return Check("hub cache", "ok", f"{folder}: {held} models, {mode}")


def _graphs() -> Check:
    folder = cache.directory()
    if folder is None:
        return Check(
            "graph cache", "warn", "not used: this user has no home; start-up takes longer"
        )
    if reason := cache.refusal(folder) or _unwritable(folder):
        return Check("graph cache", "warn", f"{folder} is not used: {reason}")
    held = len(list(folder.glob("*.onnx"))) if folder.is_dir() else 0
    return Check("graph cache", "ok", f"{folder}: {held} rewritten graphs")


def _unwritable(folder: Path) -> str:
    """Return why a folder, or the first above it that exists, takes no files; "" if it does."""
    place = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return ""
    return f"{place} takes no files; start-up takes longer"


def _called(settings: StageSettings) -> str:
    named = settings.scorer
    if isinstance(named, str):
        return named
    if isinstance(named, EncoderSettings):
        return f"encoder {named.encoder}"
    return f"{named.provider} {named.model}".strip()


def _model(name: str, settings: StageSettings, policy: Policy) -> Iterator[Check]:
    label = f"{name}: {_called(settings)}"
    try:
        scorer = build.scorer(settings)
    except RerankError as error:
        yield Check(label, "fail", str(error))
        return
    yield Check(label, "ok", f"{scorer.name}, scores are of kind {scorer.score_kind}")
    if isinstance(scorer, OnnxScorer):
        yield from _files(name, settings, scorer)
    if isinstance(scorer, Sends):
        yield _destination(name, scorer, policy)
        yield Check(f"{name}: trial", "ok", "not tried: it would send text to its destination")
    else:
        yield _try(name, scorer)
    scorer.close()


def _whole(settings: Settings) -> Check:
    """Load everything as `run` does: stages together, with the rules, the guard and the exits."""
    try:
        with Reranker(build.build_setup(settings)) as reranker:
            reranker.warm_up()
            return Check("configuration", "ok", f"loads as a whole: {reranker.model}")
    except (RerankError, ImportError) as error:
        return Check("configuration", "fail", str(error))


def _destination(name: str, scorer: Sends, policy: Policy) -> Check:
    verdict = policy.verdict(scorer.destination)
    if verdict.allowed:
        return Check(f"{name}: policy", "ok", f"text may go to {scorer.destination}")
    return Check(f"{name}: policy", "fail", verdict.reason)


def _files(name: str, settings: StageSettings, scorer: OnnxScorer) -> Iterator[Check]:
    files = scorer.files
    megabytes = files.graph.stat().st_size / 1e6
    revision = f", revision {files.revision[:12]}" if files.revision else ""
    yield Check(f"{name}: graph", "ok", f"{files.graph} ({megabytes:.1f} MB{revision})")
    if scorer.int8_failure or files.kernels_reason:
        yield Check(f"{name}: kernels", "ok", scorer.int8_failure or files.kernels_reason)
    yield _manifest(name, files.listed)
    longest = usable_tokens(files)
    found = f"{scorer.max_tokens} of at most {longest}, long = {settings.long!r}"
    yield Check(f"{name}: tokens a pair", "ok", f"{found}; runs on {scorer.graph.provider}")
    yield _licence(name, settings, files.card)


def _manifest(name: str, listed: Listed) -> Check:
    """Return how many files the manifest vouches for: loading has compared those that are here."""
    if listed is None:
        return Check(
            f"{name}: manifest", "warn", "none of ours: nothing says what the files should be"
        )
    here = sum(path.is_file() for path in listed)
    part = f"; not in the hub's cache: {len(listed) - here}" if here < len(listed) else ""
    return Check(f"{name}: manifest", "ok", f"{here} files match their sha256{part}")


def _licence(name: str, settings: StageSettings, card: Mapping[str, object]) -> Check:
    known = KNOWN.get(_called(settings))
    label = f"{name}: licence"
    if known is not None:
        if not known.commercial:
            return Check(label, "warn", f"{known.licence} forbids commercial use")
        return Check(label, "ok", known.licence)
    licence = card.get("licence")
    if isinstance(licence, str):
        return Check(label, "warn" if "NC" in licence.split("-") else "ok", licence)
    return Check(label, "warn", "unknown: read the model's page before you ship it")


def _try(name: str, scorer: Scorer) -> Check:
    """Run the model once: the passage that answers must come first."""
    started = time.perf_counter()
    reranker = Reranker(stages=[Stage(scorer)])
    try:
        reranker.warm_up()
        warm = time.perf_counter()
        result = reranker.rerank(_QUERY, _PASSAGES, strict=True)
    except RerankError as error:
        return Check(f"{name}: trial", "fail", str(error))
    ended = time.perf_counter()
    took = f"warm-up {warm - started:.2f} s, then 2 pairs in {(ended - warm) * 1e3:.1f} ms"
    if result.order[0] != 1:
        return Check(f"{name}: trial", "fail", f"an answer came below an unrelated text; {took}")
    return Check(f"{name}: trial", "ok", f"the answer came first; {took}")

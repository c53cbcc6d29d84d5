"""Checks of an installation: what is there, which models would run, whether they work."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..config import build
from ..config.schema import Settings, StageSettings
from ..config.vector_schema import EncoderSettings
from ..core.stage import Stage
from ..errors import RerankError
from ..reranker import Reranker
from ..rules.residency import Policy
from ..scoring import Scorer, Sends
from ..scoring.lexical import LexicalScorer
from ..scoring.models import hub
from ..scoring.models.content import verify
from ..scoring.models.files import cpu_features
from ..scoring.models.registry import KNOWN
from ..scoring.onnx.graph import cache
from ..scoring.onnx.options import usable_tokens
from ..scoring.onnx.scorer import OnnxScorer
from ..scoring.runtime import process
from ..scoring.runtime.ort import onnxruntime

Verdict: TypeAlias = Literal["ok", "warn", "fail"]
_LIBRARIES = ("rerank-plugins", "onnxruntime", "numpy", "tokenizers", "huggingface-hub")

# A module that only the extra brings, and the extra.
_EXTRAS: Mapping[str, str] = {
    "eval": "ir_measures",
    "export": "torch",
    "otel": "opentelemetry.sdk",
    "server": "starlette",
    "ray": "ray",
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
    yield _cpu()
    yield _workers(settings)
    available = onnxruntime().get_available_providers()
    providers = [name.removesuffix("ExecutionProvider") for name in available]
    yield Check("providers", "ok", ", ".join(providers))
    yield _extras()
    yield _hub()
    yield _graphs()
    policy = settings.policy.policy()
    for place, stage in enumerate(settings.stages):
        yield from _model(f"stage {place + 1}", stage, policy)


def _python() -> Check:
    fine = sys.version_info >= (3, 11)
    return Check("python", "ok" if fine else "fail", platform.python_version())


def _library(name: str) -> Check:
    try:
        return Check(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
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


def _extras() -> Check:
    here = [extra for extra, module in _EXTRAS.items() if _installed(module)]
    missing = [extra for extra in _EXTRAS if extra not in here]
    found = f"installed: {', '.join(here) or 'none'}"
    return Check("extras", "ok", f"{found}; not: {', '.join(missing)}" if missing else found)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _hub() -> Check:
    folder, offline = hub.local_cache()
    held = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    mode = "offline (HF_HUB_OFFLINE)" if offline else "online"
    return Check("hub cache", "ok", f"{folder}: {held} models, {mode}")


def _graphs() -> Check:
    folder = cache.directory()
    if folder is None:
        return Check(
            "graph cache", "warn", "not used: this user has no home; start-up takes longer"
        )
    if reason := cache.refusal(folder):
        return Check("graph cache", "warn", f"{folder} is not used: {reason}")
    held = len(list(folder.glob("*.onnx"))) if folder.is_dir() else 0
    return Check("graph cache", "ok", f"{folder}: {held} rewritten graphs")


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
    if isinstance(scorer, OnnxScorer | LexicalScorer):
        yield _try(name, scorer)
    if isinstance(scorer, Sends):
        yield _destination(name, scorer, policy)
        yield Check(f"{name}: trial", "ok", "not tried: it would send text to its destination")
    scorer.close()


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
    folder = files.tokenizer.parent
    if scorer.int8_failure or files.kernels_reason:
        yield Check(f"{name}: kernels", "ok", scorer.int8_failure or files.kernels_reason)
    if (folder / "manifest.json").is_file():
        found = f"{verify(folder)} files match their sha256"
        yield Check(f"{name}: manifest", "ok", found)
    else:
        yield Check(f"{name}: manifest", "warn", "none: nothing says what the files should be")
    longest = usable_tokens(files)
    found = f"{scorer.max_tokens} of at most {longest}, long = {settings.long!r}"
    yield Check(f"{name}: tokens a pair", "ok", f"{found}; runs on {scorer.graph.provider}")
    yield _licence(name, settings, files.card)


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
    reranker.warm_up()
    warm = time.perf_counter()
    try:
        result = reranker.rerank(_QUERY, _PASSAGES, strict=True)
    except RerankError as error:
        return Check(f"{name}: trial", "fail", str(error))
    ended = time.perf_counter()
    took = f"warm-up {warm - started:.2f} s, then 2 pairs in {(ended - warm) * 1e3:.1f} ms"
    if result.order[0] != 1:
        return Check(f"{name}: trial", "fail", f"an answer came below an unrelated text; {took}")
    return Check(f"{name}: trial", "ok", f"the answer came first; {took}")

"""Open a model's graph in its fastest exact form: rewritten, proved equal, kept on disk."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ....errors import ModelError
from ...models.content import GraphFile
from ...runtime.ort import onnxruntime
from ...text.tokenizer import PairArrays
from ..session import Graph, Provider, open_graph, score_output
from . import cache
from .verify import TOLERANCE, compare

if TYPE_CHECKING:
    from onnx import ModelProto

Probes: TypeAlias = Callable[[], Sequence[PairArrays]]
"""Makes batches of real pairs to try a graph on; called only when a graph is new."""

Made: TypeAlias = tuple[Graph, bytes] | str
"""A new graph, opened and as the bytes of its file, or why there is none."""

# A serialised graph must stay below 2 GB, and rewriting holds the weights twice.
_MAX_BYTES = 1536 * 2**20
FUSING_PROVIDERS = frozenset({"CPUExecutionProvider", "CUDAExecutionProvider"})
"""These have kernels for the fused operators; others would leave each of them to the CPU."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A graph ready to run.

    note: why it runs as it was exported, "" where it was rewritten.
    key: names other files kept for this graph and runtime; "" where nothing is kept.
    """

    graph: Graph
    note: str = ""
    key: str = ""


def open_rewritten(
    path: Path | GraphFile,
    probes: Probes,
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
    folder: Path | None = None,
) -> Prepared:
    """Open a graph, rewritten where `probes` prove that it changes no score.

    `folder` keeps results for the next process (None: nothing is kept). Raises `ModelError`, and
    `ConfigError` for an absent provider.
    """
    opener = partial(open_graph, provider=provider, intra_threads=intra_threads)
    file = GraphFile.of(path)
    if too_big := oversized(file):
        return Prepared(opener(file), too_big)
    name = "" if folder is None else cache.key(file, runtime(provider))
    found = kept_or_made(folder, name, partial(_rewritten, file, provider, probes, opener), opener)
    if isinstance(found, str):
        return Prepared(opener(file), found, name)
    return Prepared(found, key=name)


def runtime(provider: Provider) -> str:
    """Return name and version of what runs graphs."""
    return f"onnxruntime {onnxruntime().__version__} {provider}"


def oversized(graph: Path | GraphFile) -> str:
    """Return why a graph is too big to rewrite, "" where it is not."""
    size = GraphFile.of(graph).size_bytes()
    return f"{size >> 20} MB are too many to rewrite at load" if size > _MAX_BYTES else ""


def kept_or_made(
    folder: Path | None, name: str, make: Callable[[], Made], opener: Callable[[bytes], Graph]
) -> Graph | str:
    """Return a graph that an earlier process kept, or make and keep it; else why there is none."""
    if folder is None:
        made = make()
        return made if isinstance(made, str) else made[0]
    if (kept := cache.graph(folder, name)) is not None:
        # One that does not load after all is made again below.
        with contextlib.suppress(ModelError):
            return opener(kept)
    reason = cache.note(folder, name)
    if reason is not None:
        return reason
    made = make()
    if isinstance(made, str):
        cache.write(folder / f"{name}.txt", made.encode())
        return made
    cache.keep(folder, name, made[1])
    return made[0]


def make_graph(
    file: GraphFile,
    opener: Callable[[bytes], Graph],
    change: Callable[["ModelProto"], str],
    objection: Callable[[Graph, Graph, Sequence[PairArrays]], str],
    probes: Probes,
) -> Made:
    """Make a graph with `change`; `objection` compares the original with it on `probes`.

    Both return why there is no new graph, "" where there is one.
    """
    from .read import load

    try:
        # The runtime's own optimisations change scores; `literal` runs what the file says.
        original = open_graph(file, literal=True)
        model = load(file)
        if reason := change(model):
            return reason
    except Exception as error:  # noqa: BLE001 - what onnxruntime runs, onnx may still refuse
        return f"the graph cannot be read for rewriting: {error}"
    data = model.SerializeToString()
    try:
        graph = opener(data)
        return objection(original, graph, probes()) or (graph, data)
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the original runs
        return f"the rewritten graph fails: {error}"


def _rewritten(
    file: GraphFile,
    provider: Provider,
    probes: Probes,
    opener: Callable[[GraphFile | bytes], Graph],
) -> Made:
    if provider != "cpu" and (here := opener(file).provider) not in FUSING_PROVIDERS:
        return f"{here} has no kernels for fused operators"
    return make_graph(file, opener, _rewrite, _scores_differ, probes)


def _rewrite(model: "ModelProto") -> str:
    from .rewrite import rewrite

    done = rewrite(model, [score_output([value.name for value in model.graph.output])])
    return "" if done.layers or done.dequantised else "no encoder layer was recognised"


def _scores_differ(original: Graph, graph: Graph, batches: Sequence[PairArrays]) -> str:
    moved = compare(original, graph, batches)
    small = moved <= TOLERANCE
    return "" if small else f"the rewritten graph's scores differ by {moved:.1e} of their spread"

"""Run a model's graph in its fastest exact form: rewritten, proved equal, kept on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ....errors import ModelError
from ...text.tokenizer import PairArrays
from ..session import Graph, Provider, open_graph, score_output
from . import cache

# A serialised graph must stay below 2 GB, and rewriting holds the weights twice.
_MAX_BYTES = 1536 * 2**20
# The fused operators have kernels there; elsewhere they would fall back to the CPU one by one.
_PROVIDERS = frozenset({"CPUExecutionProvider", "CUDAExecutionProvider"})
Made: TypeAlias = tuple[Graph, bytes] | str
"""A graph that was made, opened and as a file, or why it could not be."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A graph ready to run; `note` says why it runs as it was exported, "" where it does not.

    `key` hashes what decides how it runs, for what else is kept of it; "" where nothing is kept.
    """

    graph: Graph
    note: str = ""
    key: str = ""


def prepare(
    path: Path,
    probes: Callable[[], Sequence[PairArrays]],
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
    folder: Path | None = None,
) -> Prepared:
    """Open a graph, rewritten where that is proved to change no score.

    `probes` makes the batches that prove it; it is asked when a graph is seen for the first time.
    `folder` keeps results for the next process (None: nothing is kept). Raises `ModelError`, and
    `ConfigError` for an absent provider.
    """

    def opened(graph: Path | bytes) -> Graph:
        return open_graph(graph, provider=provider, intra_threads=intra_threads)

    if too_big := oversized(path):
        return Prepared(opened(path), too_big)
    name = "" if folder is None else cache.key(path, runtime(provider))
    found = once(folder, name, lambda: _rewritten(path, provider, probes, opened), opened)
    if isinstance(found, str):
        return Prepared(opened(path), found, name)
    return Prepared(found, key=name)


def runtime(provider: Provider) -> str:
    """Name what runs graphs, its version included."""
    import onnxruntime as ort

    return f"onnxruntime {ort.__version__} {provider}"


def oversized(path: Path) -> str:
    """Say that a graph is too big to rewrite, "" where it is not."""
    size = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*") if one.is_file())
    return f"{size >> 20} MB are too many to rewrite at load" if size > _MAX_BYTES else ""


def once(
    folder: Path | None, name: str, make: Callable[[], Made], opened: Callable[[Path], Graph]
) -> Graph | str:
    """Open a graph that an earlier process left, or make and keep it, or why there is none."""
    if folder is None:
        made = make()
        return made if isinstance(made, str) else made[0]
    path = folder / f"{name}.onnx"
    if cache.touch(path):
        try:
            return opened(path)
        except ModelError:
            # Damaged on disk: made again below.
            cache.discard(path)
    reason = cache.note(folder, name)
    if reason is not None:
        return reason
    made = make()
    if isinstance(made, str):
        cache.write(folder / f"{name}.txt", made.encode())
        return made
    cache.write(path, made[1])
    return made[0]


def _rewritten(
    path: Path,
    provider: Provider,
    probes: Callable[[], Sequence[PairArrays]],
    opened: Callable[[Path | bytes], Graph],
) -> Made:
    from .read import load
    from .rewrite import rewrite
    from .verify import compare

    if provider != "cpu" and (here := opened(path).provider) not in _PROVIDERS:
        return f"{here} has no kernels for fused operators"
    try:
        # Parity is to what the file says, not to what the runtime makes of it.
        original = open_graph(path, literal=True)
        model = load(path)
    except Exception as error:  # noqa: BLE001 - what onnxruntime runs, onnx may still refuse
        return f"the graph cannot be read for rewriting: {error}"
    done = rewrite(model, [score_output([one.name for one in model.graph.output])])
    if not done.layers and not done.dequantised:
        return "no encoder layer was recognised"
    data = model.SerializeToString()
    try:
        graph = opened(data)
        parity = compare(original, graph, probes())
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the original runs
        return f"the rewritten graph fails: {error}"
    if not parity.equal:
        return f"the rewritten graph's scores differ by {parity.difference:.1e} of their spread"
    return graph, data

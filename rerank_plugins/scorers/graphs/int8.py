"""A graph with int8 kernels, made at load from weights that are stored as int8, and tried out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..files import cpu_features
from ..session import Graph, Provider, open_graph, score_output
from ..tokens import PairArrays
from . import Made, Prepared, cache, once, oversized, runtime

# With these, products of 8 bits are added up without saturating.
_SAFE = frozenset({"avx512_vnni", "avx_vnni", "arm64"})


def prepare(
    path: Path,
    probes: Callable[[], Sequence[PairArrays]],
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
    folder: Path | None = None,
) -> Prepared | str:
    """Open a graph with int8 kernels in its layers, or say why it has none.

    `probes` makes batches of real pairs to try it on, see `verify.objection`; `folder` keeps the
    result, the reason as well. Raises `ModelError`.
    """
    if provider != "cpu":
        return f"they need provider 'cpu', found {provider!r}"
    if too_big := oversized(path):
        return too_big

    def opened(graph: Path | bytes) -> Graph:
        return open_graph(graph, intra_threads=intra_threads)

    name = "" if folder is None else cache.key(path, f"{runtime(provider)} int8")
    found = once(folder, name, lambda: _made(path, probes, opened), opened)
    return found if isinstance(found, str) else Prepared(found, key=name)


def _made(
    path: Path,
    probes: Callable[[], Sequence[PairArrays]],
    opened: Callable[[Path | bytes], Graph],
) -> Made:
    from .load import load
    from .rewrite import rewrite
    from .rows import multiply
    from .verify import objection

    original = open_graph(path, literal=True)
    try:
        model = load(path)
        done = rewrite(model, [score_output([one.name for one in model.graph.output])])
    except Exception as error:  # noqa: BLE001 - what onnxruntime runs, onnx may still refuse
        return f"the graph cannot be read for rewriting: {error}"
    if not done.dequantised:
        return "its weights are not stored as int8 behind DequantizeLinear"
    if not done.layers:
        return "no encoder layer was recognised"
    try:
        multiply(model, signed=bool(_SAFE & cpu_features()))
        data = model.SerializeToString()
        graph = opened(data)
        reason = objection(original, graph, probes())
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the exact graph runs
        return f"the graph with int8 kernels fails: {error}"
    return reason or (graph, data)

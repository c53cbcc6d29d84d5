"""A graph with int8 kernels, made at load from weights that are stored as int8, and tried out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..files import cpu_features
from ..session import Graph, Provider, open_graph, score_output
from ..tokens import PairArrays
from . import Prepared, cache, known, oversized, runtime

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

    if folder is None:
        made = _made(path, probes, opened)
        return made if isinstance(made, str) else Prepared(made[0])
    name = cache.key(path, f"{runtime(provider)} int8")
    found = known(folder, name, opened) or cache.note(folder, name)
    if found is None:
        made = _made(path, probes, opened)
        ending, data = (".txt", made.encode()) if isinstance(made, str) else (".onnx", made[1])
        cache.write(folder / f"{name}{ending}", data)
        found = made if isinstance(made, str) else made[0]
    return found if isinstance(found, str) else Prepared(found, key=name)


def _made(
    path: Path,
    probes: Callable[[], Sequence[PairArrays]],
    opened: Callable[[Path | bytes], Graph],
) -> tuple[Graph, bytes] | str:
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

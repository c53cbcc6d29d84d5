"""An ONNX Runtime session and what its graph takes and gives."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, ModelError
from .. import Floats
from ..models.content import GraphFile
from ..runtime.ort import onnxruntime
from ..text.tokenizer import PairArrays

if TYPE_CHECKING:
    import onnxruntime as ort


Provider: TypeAlias = Literal["cpu", "cuda", "tensorrt", "coreml", "directml", "openvino", "auto"]

_PROVIDERS: Mapping[str, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

# CUDA's defaults would round products to TF32, which moves scores, and double its arena at a time.
_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"},
}

UNHELPFUL: Mapping[str, Sequence[str]] = {"CPUExecutionProvider": ("BiasGeluFusion",)}
"""The runtime's optimisations that are switched off: on CPUs this one is slower than none."""

# What "auto" tries, in order. Not TensorRT: it builds an engine per shape at first use.
_AUTO = ("cuda", "coreml", "directml", "openvino", "cpu")
_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
}
# How configurations call the label of pairs that belong together, and how they deny it.
_RELEVANT = frozenset(
    {
        "relevant",
        "positive",
        "pos",
        "yes",
        "true",
        "match",
        "duplicate",
        "paraphrase",
        "entailment",
        "label_1",
        "1",
    }
)
_IRRELEVANT = frozenset({"negative", "neg", "no", "false", "label_0", "0"})
_DENIED = re.compile(r"(?:not|non|no|un|ir)_?(?=\w)")
# Scores are [pairs] or [pairs, columns].
_MAX_AXES = 2
KNOWN_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
"""The inputs that an encoder of pairs may have."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A session, the inputs its graph declares, and the output that carries the scores.

    types: the inputs' types by their names in ONNX Runtime; int64 where there is none
    """

    session: "ort.InferenceSession"
    inputs: frozenset[str]
    output: str
    provider: str
    types: Mapping[str, str] = field(default_factory=dict)

    def run(self, pairs: PairArrays) -> Floats:
        """Run a batch and return the output's columns, float32 [pairs, columns]."""
        feeds = {
            name: as_declared(getattr(pairs, name), self.types.get(name, ""))
            for name in self.inputs
        }
        (logits,) = self.session.run([self.output], feeds)
        return score_columns(logits, len(pairs.input_ids))


def open_graph(
    graph: Path | GraphFile | bytes,
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
    literal: bool = False,
) -> Graph:
    """Load a graph, given as a file or as bytes, and check that it is a pairwise scorer.

    See `open_session`. Raises `ModelError` for a broken or foreign graph and `ConfigError` for an
    absent provider.
    """
    where = _named(graph)
    session = open_session(graph, provider=provider, intra_threads=intra_threads, literal=literal)
    types = {value.name: value.type for value in session.get_inputs()}
    inputs = frozenset(types)
    axes = {value.name: len(value.shape) for value in session.get_outputs()}
    if "input_ids" not in inputs or inputs - KNOWN_INPUTS:
        message = (
            f"{where} takes {sorted(inputs)}; expected input_ids, and at most attention_mask and "
            "token_type_ids beside it. This is not a text-pair cross-encoder"
        )
        raise ModelError(message)
    output = score_output(list(axes))
    if axes[output] > _MAX_AXES:
        message = (
            f"{where} gives {output} with {axes[output]} axes; expected one score, or a few, for "
            "each pair. This is an encoder without a scoring head; export the cross-encoder"
        )
        raise ModelError(message)
    return Graph(session, inputs, output, session.get_providers()[0], types)


def open_session(
    graph: Path | GraphFile | bytes,
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
    literal: bool = False,
) -> "ort.InferenceSession":
    """Load a graph, given as a file or as bytes.

    One thread inside an operator and one caller per core beats the reverse on CPUs (1.1-1.25x).
    `literal` runs the file operator by operator: ONNX Runtime's own optimisations are not always
    exact (they quantise activations where weights are stored as int8). Raises `ModelError` for a
    broken graph or a provider that does not start, and `ConfigError` for an absent provider.
    """
    library = onnxruntime()
    chosen = providers(provider, library.get_available_providers())
    options = _session_options(intra_threads)
    if literal:
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    source, weights = _source(graph)
    if weights:
        sizes = [len(values) for values in weights.values()]
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), sizes
        )
    try:
        session = library.InferenceSession(
            source,
            options,
            providers=chosen,
            disabled_optimizers=list(UNHELPFUL.get(chosen[0][0], ())),
        )
    except Exception as error:
        message = (
            f"{_named(graph)} does not load in onnxruntime {library.__version__}: {error}. "
            "Expected a cross-encoder exported to ONNX, its .onnx.data sidecar beside it if it has "
            "one; export it again with: rerank-plugins export MODEL OUT_DIR"
        )
        raise ModelError(message) from error
    check_provider(provider, session.get_providers()[0])
    # The runtime computes with these buffers and does not keep them alive itself.
    session.verified_weights = weights
    if chosen[0][0] == "CPUExecutionProvider" and isinstance(source, bytes):
        # It keeps them for a fallback to another provider; here there is none.
        session._model_bytes = b""  # noqa: SLF001
    return session


def _session_options(intra_threads: int) -> "ort.SessionOptions":
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = intra_threads
    options.inter_op_num_threads = 1
    # Idle workers must not burn the cores that others compute on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Errors reach the caller as exceptions; the library need not print them as well.
    options.log_severity_level = 4
    return options


def _named(graph: Path | GraphFile | bytes) -> str:
    if isinstance(graph, bytes):
        return "the rewritten graph"
    return str(graph.path if isinstance(graph, GraphFile) else graph)


def _source(graph: Path | GraphFile | bytes) -> tuple[str | bytes, dict[str, bytes]]:
    """Return what a session is made from, and weights by name where they are handed over.

    What a manifest vouches for is handed over as the bytes that were hashed. Without a manifest the
    runtime reads the files itself, which takes less memory.
    """
    if isinstance(graph, bytes):
        return graph, {}
    file = GraphFile.of(graph)
    return (str(file.path), {}) if file.listed is None else file.read()


def check_provider(wanted: Provider, found: str) -> None:
    """Raise `ModelError` for a session that fell back to another provider than `wanted`.

    ONNX Runtime falls back without an error where a provider's libraries do not load.
    """
    if wanted == "auto" or found == _PROVIDERS[wanted]:
        return
    message = (
        f"provider {wanted!r} is in this onnxruntime but does not start: the model would run on "
        f"{found}. Install the libraries it needs (for cuda: CUDA and cuDNN of the versions that "
        f"onnxruntime names) or use provider 'cpu', or 'auto' for the best that starts"
    )
    raise ModelError(message)


def as_declared(array: NDArray[np.int64], declared: str) -> NDArray[np.generic]:
    """Return an input in the type that its graph declares, such as "tensor(int32)"."""
    return array.astype(_DTYPES.get(declared, np.int64), copy=False)


def score_columns(output: object, pairs: int) -> Floats:
    """Return a head's output as float32 [pairs, columns]; a lone pair may have lost its axis.

    Raises `ModelError` for an output of another number of pairs.
    """
    columns = np.asarray(output, dtype=np.float32)
    if columns.ndim == 0 or (pairs == 1 and columns.ndim == 1):
        columns = columns.reshape(1, -1)
    elif columns.ndim == 1:
        columns = columns[:, None]
    if len(columns) != pairs:
        message = (
            f"the graph gives {columns.shape} for {pairs} pairs; expected a row for each pair: "
            "export it again with a dynamic batch axis"
        )
        raise ModelError(message)
    return columns


def single_column(
    columns: Floats, column: int | None, model: str, labels: Sequence[str] = ()
) -> Floats:
    """Reduce a head's columns [pairs, columns] to one logit per pair.

    labels: what the configuration calls the columns. Raises `ModelError`, also where the labels of
        two columns do not say which is the relevant one.
    """
    count = columns.shape[1]
    if column is not None and -count <= column < count:
        return columns[:, column]
    if column is None and count == 1:
        return columns[:, 0]
    if column is None and count == 2:  # noqa: PLR2004 - irrelevant, relevant
        relevant = relevant_column(labels, model)
        return columns[:, relevant] - columns[:, 1 - relevant]
    message = (
        f"model {model!r} gives {count} columns per pair and score_column is {column}; expected 1 "
        "or 2 columns, or a score_column that says which one counts"
    )
    raise ModelError(message)


def relevant_column(labels: Sequence[str], model: str) -> int:
    """Return which of two columns is the relevant one: the second, unless its labels say otherwise.

    Raises `ModelError` for labels that do not say.

    >>> relevant_column(["relevant", "not relevant"], "m"), relevant_column([], "m")
    (0, 1)
    """
    if len(labels) != 2:  # noqa: PLR2004 - as many as columns
        return 1
    first, second = (_sense(label) for label in labels)
    if first != second and first is not True and second is not False:
        return 1
    if first != second and first is not False and second is not True:
        return 0
    message = (
        f"model {model!r} calls its two columns {list(labels)}, which does not say which one means "
        "relevant; name it by score_column = 0 or 1"
    )
    raise ModelError(message)


def _sense(label: str) -> bool | None:
    """Return True for a label that means relevant, False for its contrary, None if unknown."""
    name = re.sub(r"\W+", "_", label.strip().lower())
    if name in _RELEVANT:
        return True
    bare = _DENIED.sub("", name, count=1)
    return False if name in _IRRELEVANT or (bare != name and bare in _RELEVANT) else None


def score_output(outputs: Sequence[str]) -> str:
    """Return which of a graph's outputs carries the scores."""
    return next((name for name in ("logits", "scores") if name in outputs), outputs[0])


def providers(provider: Provider, available: Collection[str]) -> list[tuple[str, dict[str, str]]]:
    """Return a provider's names and settings in ONNX Runtime, CPU last.

    `available` names the providers of this onnxruntime. Raises `ConfigError` for others.
    """
    if provider == "auto":
        names = [_PROVIDERS[name] for name in _AUTO if _PROVIDERS[name] in available]
    elif provider not in _PROVIDERS:
        message = f"provider {provider!r} is unknown; expected one of {[*_PROVIDERS, 'auto']}"
        raise ConfigError(message)
    elif _PROVIDERS[provider] not in available:
        here = sorted(key for key, value in _PROVIDERS.items() if value in available)
        message = (
            f"provider {provider!r} is not in this onnxruntime; found {here}. Install the matching "
            "build (such as onnxruntime-gpu), or use one of those"
        )
        raise ConfigError(message)
    else:
        names = list(dict.fromkeys((_PROVIDERS[provider], _PROVIDERS["cpu"])))
    return [(name, dict(_SETTINGS.get(name, {}))) for name in names]

"""A bi-encoder in ONNX Runtime: texts become vectors, as sentence-transformers makes them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...rules.batching import plan
from .. import Floats, check_finite
from ..models.content import GraphFile, fingerprint
from ..models.files import ModelFiles, padding
from ..onnx.graph import cache, verify
from ..onnx.graph.prepare import FUSING_PROVIDERS, Made, kept_or_made, oversized, runtime
from ..onnx.options import OnnxOptions, checked, usable_tokens
from ..onnx.session import KNOWN_INPUTS, Graph, Provider, open_session
from ..text.tokenizer import Ids, PairArrays, PairTokenizer
from .layout import Layout, PoolingMode, read_layout

if TYPE_CHECKING:
    from onnx import ModelProto

# Decoders may want to be told where each token stands.
_POSITIONS = "position_ids"
# Outputs with a vector for each token, [batch, length, width], and with one for each text.
_ROW_OUTPUTS, _POOLED_OUTPUT = ("last_hidden_state", "token_embeddings"), "sentence_embedding"
_ROW_AXES = 3
_LEAST_NORM = np.float32(1e-12)
_ENCODE_BATCH_TOKENS = 2048


class Encoder:
    """Makes vectors of queries and of passages; loaded and checked when made.

    Texts longer than `max_tokens` are cut at the end, as the encoder's authors do. `options`
    says how the graph is run; windows and folding do not apply. Prompts are those of the model's
    configuration where None. Text that spells a special token is text. Raises `ModelError`.

    identity: hashes all that decides a passage's vector
    rewrite_failure: why the graph runs as it was exported, or ""
    dimensions: the length of a vector
    """

    def __init__(
        self,
        files: ModelFiles,
        options: OnnxOptions | None = None,
        *,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
    ) -> None:
        self.files = files
        self.options = replace(checked(options or OnnxOptions(), files), long="truncate")
        found = read_layout(files)
        self.layout = replace(
            found,
            query_prompt=found.query_prompt if query_prompt is None else query_prompt,
            passage_prompt=found.passage_prompt if passage_prompt is None else passage_prompt,
        )
        limits = (self.options.max_tokens, found.max_tokens, usable_tokens(files))
        self.max_tokens = min(limit for limit in limits if limit is not None)
        self.tokenizer = PairTokenizer(
            files.tokenizer,
            cache_bytes=self.options.token_cache_bytes,
            pad=padding(files),
            single=True,
            listed=files.listed,
        )
        self.identity = _identity(files, self.layout, self.max_tokens)
        self._query_rows = self._prompt_tokens(self.layout.query_prompt)
        self._passage_rows = self._prompt_tokens(self.layout.passage_prompt)
        self._graph, self.rewrite_failure, self.cache_key = self._open()
        # Two texts: a graph exported for one has a fixed axis, and its user should know now.
        self.dimensions = int(self.passage_vectors(self._arrays(["a", "b c"])).shape[1])

    def passage_texts(self, passages: Sequence[str]) -> list[str]:
        """Return what is tokenised of each passage."""
        return self._prompted(self.layout.passage_prompt, passages)

    def query_arrays(self, query: str) -> PairArrays:
        """Return a query as the model reads it; one that is too long is cut."""
        return self._arrays(self._prompted(self.layout.query_prompt, [query]))

    def query_vectors(self, arrays: PairArrays) -> Floats:
        """Return float32 [texts, dimensions] of queries. Raises `ModelError`."""
        return self._vectors(self._graph, arrays, self._query_rows)

    def passage_vectors(self, arrays: PairArrays) -> Floats:
        """Return float32 [texts, dimensions] of passages. Raises `ModelError`."""
        return self._vectors(self._graph, arrays, self._passage_rows)

    def encode(self, passages: Sequence[str]) -> Floats:
        """Return the vectors of passages, computed here and now in batches of like length."""
        ids = self._ids(self.passage_texts(passages))
        vectors = np.zeros((len(ids), self.dimensions), np.float32)
        lengths = [len(one) + self.tokenizer.template.special_tokens for one in ids]
        for batch in plan(lengths, max_batch_tokens=_ENCODE_BATCH_TOKENS):
            arrays = self._assemble([ids[i] for i in batch.pairs])
            vectors[list(batch.pairs)] = self.passage_vectors(arrays)
        return vectors

    def room(self, query: Ids) -> int:
        """Count the tokens of a text that are read; the query of a single text is empty."""
        return self.tokenizer.room(query, self.max_tokens)

    def _prompted(self, prompt: str, texts: Sequence[str]) -> list[str]:
        made = [prompt + text for text in texts] if prompt else list(texts)
        return [text.lower() for text in made] if self.layout.lower_case else made

    def _prompt_tokens(self, prompt: str) -> int:
        """Count the first rows that the pooling leaves out: a prompt's and those before it."""
        if self.layout.include_prompt or not prompt:
            return 0
        (ids,), _ = self.tokenizer.passages(self._prompted("", [prompt]))
        return len(self.tokenizer.template.before) + len(ids)

    def _ids(self, texts: Sequence[str]) -> list[Ids]:
        ids, _ = self.tokenizer.passages(texts)
        room = self.room(np.zeros(0, np.int32))
        return [one[:room] for one in ids]

    def _arrays(self, texts: Sequence[str]) -> PairArrays:
        return self._assemble(self._ids(texts))

    def _assemble(self, ids: Sequence[Ids]) -> PairArrays:
        length = max(map(len, ids)) + self.tokenizer.template.special_tokens
        # A tokenizer without special tokens makes nothing of an empty text.
        return self.tokenizer.assemble(np.zeros(0, np.int32), ids, max(1, length))

    def _vectors(self, graph: Graph, arrays: PairArrays, skip: int) -> Floats:
        try:
            vectors = self._after_graph(_run(graph, arrays), arrays.attention_mask, skip)
        except Exception as error:
            message = (
                f"model {self.files.name!r} failed on {arrays.input_ids.shape}: {error}. Expected "
                "dynamic batch and sequence axes, and modules that fit each other"
            )
            raise ModelError(message) from error
        advice = "the export or its quantisation is broken"
        check_finite(vectors.ravel(), f"model {self.files.name!r}", advice)
        return vectors

    def _after_graph(self, output: Floats, mask: NDArray[np.int64], skip: int) -> Floats:
        """Pool rows and apply the modules; pooled output has only its length to be set."""
        pooled = output.ndim < _ROW_AXES
        steps = self.layout.steps
        vectors = output if pooled else pool(output, mask, self.layout.pooling, skip)
        for step in () if pooled else steps:
            vectors = unit(vectors) if step is None else step.apply(vectors)
        scaled = self.layout.similarity == "cosine" or (pooled and None in steps)
        return unit(vectors) if scaled else vectors

    def _open(self) -> tuple[Graph, str, str]:
        """Open the graph in its fastest form; as `OnnxScorer` does."""
        options, file = self.options, self.files.graph_file
        opener = partial(
            open_encoder_graph, provider=options.provider, intra_threads=options.intra_threads
        )
        if not options.rewrite:
            return opener(file), "", ""
        if too_big := oversized(file):
            return opener(file), too_big, ""
        if options.provider != "cpu" and (found := opener(file)).provider not in FUSING_PROVIDERS:
            return found, f"{found.provider} has no kernels for fused operators", ""
        folder = cache.usable() if options.graph_cache else None
        first_row = self._reads_first_row()
        facts = f"{runtime(options.provider)} encoder{' first row' if first_row else ''}"
        name = "" if folder is None else cache.key(file, facts)
        make = partial(self._rewritten, opener, first_row=first_row)
        made = kept_or_made(folder, name, make, opener)
        if isinstance(made, str):
            return opener(file), made, name
        return made, "", name

    def _reads_first_row(self) -> bool:
        """True if the first row alone becomes the vector: the last layer then computes no other."""
        return self.layout.pooling == ("cls",) and not self._query_rows + self._passage_rows

    def _rewritten(self, opener: "partial[Graph]", *, first_row: bool) -> Made:
        """Return the rewritten graph if its vectors compare as the original's, else why not."""
        from ..onnx.graph.read import load
        from ..onnx.graph.rewrite import rewrite

        file = self.files.graph_file
        try:
            # The runtime's own optimisations change numbers; `literal` runs what the file says.
            original = opener(file, literal=True)
            model = load(file)
            output = _add_first_row(model, original.output) if first_row else original.output
            done = rewrite(model, [output])
            if not done.layers and not done.dequantised:
                return "no encoder layer was recognised"
            data = model.SerializeToString()
            graph = opener(data)
            moved = verify.difference(self._similarities(original), self._similarities(graph))
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the original runs
            return f"the graph cannot be rewritten: {error}"
        if moved <= verify.TOLERANCE:
            return graph, data
        return f"the rewritten graph's vectors differ by {moved:.1e} of their similarities' spread"

    def _similarities(self, graph: Graph) -> NDArray[np.float64]:
        """Compare some texts with each other [texts, texts]."""
        batches = verify.probes(self.tokenizer, self.max_tokens)
        vectors = np.concatenate([self._vectors(graph, batch, 0) for batch in batches])
        compared: NDArray[np.float64] = np.matmul(vectors, vectors.T, dtype=np.float64)
        return compared


def pool(
    rows: Floats, attention_mask: NDArray[np.int64], modes: Sequence[PoolingMode], skip: int = 0
) -> Floats:
    """Reduce rows [texts, length, width] to [texts, modes * width], the first `skip` left out.

    Texts are padded at the end. As sentence-transformers pools (its module Pooling).

    >>> rows = np.array([[[1.0], [3.0], [9.0]]], np.float32)
    >>> pool(rows, np.array([[1, 1, 0]]), ("cls", "max", "mean", "lasttoken")).tolist()
    [[1.0, 3.0, 2.0, 3.0]]
    """
    mask = attention_mask.astype(np.float32)
    mask[:, :skip] = 0.0
    places = np.arange(len(rows))
    parts: list[Floats] = []
    for mode in modes:
        if mode == "cls":
            parts.append(rows[places, mask.argmax(axis=1)])
        elif mode == "lasttoken":
            parts.append(rows[places, np.maximum(attention_mask.sum(axis=1) - 1, 0)])
        elif mode == "max":
            parts.append(np.where(mask[:, :, None] > 0.0, rows, -np.inf).max(axis=1))
        else:
            counted = mask
            if mode == "weightedmean":
                counted = mask * np.arange(1, mask.shape[1] + 1, dtype=np.float32)
            total = np.maximum(counted.sum(axis=1, keepdims=True), np.float32(1e-9))
            if mode == "mean_sqrt_len_tokens":
                total = np.sqrt(total)
            parts.append(np.matmul(counted[:, None, :], rows)[:, 0] / total)
    return np.concatenate(parts, axis=1, dtype=np.float32)


def unit(vectors: Floats) -> Floats:
    """Scale vectors [n, dimensions] to length 1; a zero stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / np.maximum(norms, _LEAST_NORM)
    return scaled


def open_encoder_graph(
    graph: GraphFile | bytes,
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
    literal: bool = False,
) -> Graph:
    """Load an encoder's graph and find the output with its rows, or with pooled vectors.

    Raises `ModelError`, and `ConfigError` for an absent provider.
    """
    session = open_session(graph, provider=provider, intra_threads=intra_threads, literal=literal)
    inputs = frozenset(value.name for value in session.get_inputs())
    if not {"input_ids", "attention_mask"} <= inputs or inputs - KNOWN_INPUTS - {_POSITIONS}:
        where = str(graph.path) if isinstance(graph, GraphFile) else "the rewritten graph"
        message = (
            f"{where} takes {sorted(inputs)}; expected input_ids and attention_mask, and at most "
            "token_type_ids and position_ids beside them. Export it for feature extraction"
        )
        raise ModelError(message)
    axes = {value.name: len(value.shape) for value in session.get_outputs()}
    named = [name for name in (*_ROW_OUTPUTS, _POOLED_OUTPUT) if name in axes]
    rows = [name for name, count in axes.items() if count == _ROW_AXES]
    output = (named or rows or list(axes))[0]
    return Graph(session, inputs, output, session.get_providers()[0])


def _run(graph: Graph, arrays: PairArrays) -> Floats:
    """Return the output for a batch, float32 [texts, length, width] or [texts, width]."""
    feeds = {name: getattr(arrays, name) for name in graph.inputs if name != _POSITIONS}
    if _POSITIONS in graph.inputs:
        shape = arrays.input_ids.shape
        feeds[_POSITIONS] = np.broadcast_to(np.arange(shape[1], dtype=np.int64), shape)
    (values,) = graph.session.run([graph.output], feeds)
    return np.asarray(values, dtype=np.float32)


def _add_first_row(model: "ModelProto", output: str) -> str:
    """Add the first row of `output` [batch, length, width] as an output [batch, 1, width]."""
    from onnx import TensorProto, helper, numpy_helper

    name, places = f"{output}/first", f"{output}/first/places"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), places))
    model.graph.node.append(helper.make_node("Gather", [output, places], [name], axis=1))
    shape: list[str | int | None] = ["batch", 1, None]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return name


def _identity(files: ModelFiles, layout: Layout, max_tokens: int) -> str:
    facts = [files.graph_file.sha256(), files.tokenizer_sha256()]
    facts += [repr(max_tokens), *layout.weight_hashes]
    facts += [repr(layout.pooling), repr(layout.include_prompt), repr(layout.lower_case)]
    facts += [repr(layout.passage_prompt), layout.similarity]
    facts += ["1" if step is None else step.activation for step in layout.steps]
    return fingerprint(facts)

"""Write a model repository for Triton, and the settings of the `triton` stage that asks it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ModelError
from ..models.files import EMBEDDED, ModelFiles, Precision, find
from ..models.hub import Hub
from ..onnx.decoder import prompt_of
from ..onnx.graph.verify import TOLERANCE, compare, probes
from ..onnx.options import usable_tokens
from ..onnx.session import open_graph, score_output
from ..text.tokenizer import PairTokenizer
from .exits import copy_sides
from .export import written_whole

if TYPE_CHECKING:
    import onnx

MOST_PAIRS = 64
# Short beside the time of a batch, and long enough to fill one under load.
_QUEUE_DELAY_US = 500
_MOST_QUEUED = 1024
_WARM_UP_TOKENS = (32, 128, 512)
# A graph's file must be smaller than 2 GB; beyond that its weights lie in a second file.
_MOST_BYTES = 1536 * 2**20
_TYPES = {1: "TYPE_FP32", 7: "TYPE_INT64", 10: "TYPE_FP16", 11: "TYPE_FP64"}


@dataclass(frozen=True, slots=True)
class Repository:
    """A written repository.

    model: the model's name in it.
    files: sizes in bytes by path.
    difference: of its graph's scores to the model's own, as a share of their spread.
    stage: settings of a stage that asks it.
    """

    folder: Path
    model: str
    files: dict[str, int]
    difference: float
    stage: dict[str, str | bool]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a graph: its type in Triton's words, its axes after the batch."""

    name: str
    type: str
    dims: tuple[int, ...]


def repository(
    model: str, folder: Path, *, precision: Precision = "fp32", hub: Hub | None = None
) -> Repository:
    """Write `model`, any that a stage can name, as a repository of one Triton model.

    Its graph has one output and plain fp32 operators, which every Triton runs alike, and is
    compared with the model's own. Raises `ModelError`; then nothing is left in `folder`.
    """
    files = find(model, precision=precision, hub=hub)
    name = _slug(model)
    target = folder / name
    if target.exists():
        message = f"{target} is there already; give a folder without a model of that name"
        raise ModelError(message)
    with written_whole(target) as work:
        (work / "1").mkdir()
        graph = _write_graph(files, work / "1" / "model.onnx")
        inputs = [_tensor(value) for value in graph.input]
        (output,) = map(_tensor, graph.output)
        difference = _checked(files, model, work / "1" / "model.onnx")
        text = config(name, inputs, output, max_tokens=usable_tokens(files))
        (work / "config.pbtxt").write_text(text, encoding="utf-8")
        (work / "tokenizer").mkdir()
        copy_sides(files, work / "tokenizer")
        written = {
            path.relative_to(work.parent).as_posix(): path.stat().st_size
            for path in sorted(work.rglob("*"))
            if path.is_file()
        }
    stage: dict[str, str | bool] = {
        "provider": "triton",
        "base_url": "http://localhost:8000",
        "model": name,
        "tokenizer": str(target / "tokenizer"),
        "token_types": "token_type_ids" in {tensor.name for tensor in inputs},
    }
    return Repository(folder, name, written, difference, stage)


def config(name: str, inputs: Sequence[Tensor], output: Tensor, *, max_tokens: int) -> str:
    """Return a model's config.pbtxt: dynamic batches, deadlines of requests, warm-up at start.

    Warm-up runs one pair and a full batch, of zeros: random token ids could lie outside the
    vocabulary.
    """
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MOST_PAIRS}",
        *(f"input {{ {_described(tensor)} }}" for tensor in inputs),
        f"output {{ {_described(output)} }}",
        "dynamic_batching {",
        f"  max_queue_delay_microseconds: {_QUEUE_DELAY_US}",
        "  default_queue_policy {",
        "    allow_timeout_override: true",
        f"    max_queue_size: {_MOST_QUEUED}",
        "  }",
        "}",
    ]
    for length in sorted({min(tokens, max_tokens) for tokens in _WARM_UP_TOKENS}):
        for pairs in (1, MOST_PAIRS):
            lines += ["model_warmup {", f'  name: "{pairs} x {length}"', f"  batch_size: {pairs}"]
            for tensor in inputs:
                value = f"data_type: {tensor.type} dims: [ {length} ] zero_data: true"
                lines.append(f'  inputs {{ key: "{tensor.name}" value {{ {value} }} }}')
            lines.append("}")
    return "\n".join(lines) + "\n"


def _described(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.dims)) or "1"
    # Triton needs an axis after the batch; `reshape` removes it where the graph has none.
    shaped = "" if tensor.dims else " reshape { shape: [ ] }"
    return f'name: "{tensor.name}" data_type: {tensor.type} dims: [ {dims} ]{shaped}'


def _write_graph(files: ModelFiles, path: Path) -> "onnx.GraphProto":
    """Write the graph with its scores as its only output and its weights as fp32."""
    import onnx

    from ..onnx.graph.dequantise import dequantise
    from ..onnx.graph.read import load
    from ..onnx.graph.rewrite import prune

    model = load(files.graph_file)
    dequantise(model)
    prune(model, [score_output([value.name for value in model.graph.output])])
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    sidecar = "model.onnx.data" if size > _MOST_BYTES else None
    onnx.save(model, path, save_as_external_data=sidecar is not None, location=sidecar)
    return onnx.load(path, load_external_data=False).graph


def _checked(files: ModelFiles, model: str, graph: Path) -> float:
    """Return the difference of the written graph's scores. Raises `ModelError` if it is too big."""
    tokenizer = PairTokenizer(files.tokenizer, prompt=prompt_of(files), listed=files.listed)
    batches = probes(tokenizer, min(usable_tokens(files), 256))
    difference = compare(open_graph(files.graph_file, literal=True), open_graph(graph), batches)
    if difference > TOLERANCE:
        message = (
            f"the graph for Triton gives other scores than {model!r}: they differ by "
            f"{difference:.1e} of their spread; report the model"
        )
        raise ModelError(message)
    return difference


def _tensor(info: "onnx.ValueInfoProto") -> Tensor:
    kind = info.type.tensor_type
    batch, *dims = (axis.dim_value for axis in kind.shape.dim)
    if batch:
        message = f"the graph takes batches of {batch} only; export it again with dynamic axes"
        raise ModelError(message)
    if kind.elem_type not in _TYPES:
        message = f"{info.name} is of ONNX type {kind.elem_type}; expected {[*_TYPES.values()]}"
        raise ModelError(message)
    return Tensor(info.name, _TYPES[kind.elem_type], tuple(dim or -1 for dim in dims))


def _slug(model: str) -> str:
    last = model.rstrip("/").rpartition("/")[2].removesuffix(".onnx")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-.") or EMBEDDED

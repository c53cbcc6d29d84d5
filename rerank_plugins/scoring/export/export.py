"""Export a checkpoint to a folder that `Reranker` opens: graph, tokenizer, parity, manifest."""

import contextlib
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ..models.content import sha256
from ..models.files import find
from ..models.hub import switch_off_reports
from ..models.registry import PROMPTS
from ..onnx.graph.verify import probes
from ..onnx.options import usable_tokens
from ..onnx.session import open_graph
from ..runtime.ort import onnxruntime, quantization
from ..text.tokenizer import PairArrays, PairTokenizer
from . import decoder
from .exits import add_exits, copy, is_onnx
from .parity import ROUNDING, Parity, between

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Exporter: TypeAlias = Literal["transformers", "optimum"]
STEPS = ("load the checkpoint", "export the graph", "compare with torch", "write the manifest")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how close its scores are.

    exporter: None where an ONNX model was copied.
    files: sizes in bytes by name.
    parity, int8_parity: the graphs compared with torch, None where there is none.
    exits_parity: the model cut at its exits compared with the whole, None without exits.
    """

    folder: Path
    exporter: Exporter | None
    files: dict[str, int]
    parity: Parity | None
    int8_parity: Parity | None = None
    exits_parity: Parity | None = None


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A loaded checkpoint; `template` names a decoder's prompt, None for a cross-encoder."""

    source: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    template: str | None


def export(
    source: str,
    folder: Path,
    *,
    exporter: Exporter = "transformers",
    int8: bool = False,
    template: str | None = None,
    revision: str | None = None,
    exits: Sequence[int] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export a checkpoint, a hub id or a folder, to ONNX: a cross-encoder or a decoder.

    Runs no code of the checkpoint. Needs the extra `export`. Raises `ConfigError` for layers that
    the model cannot be cut after, `ModelError` where it is no reranker or its graph's scores differ
    from torch's; then nothing is left in `folder`.

    template: a decoder's prompt, as it was trained; None where `registry.KNOWN` has it. The graph
        returns the logits of the prompt's two answers.
    exits: layers after which the model can be left early, written to its card. With them `source`
        may also be an ONNX model, which is copied.
    progress: called with each of `STEPS` as it begins.
    """
    _refuse_used(folder)
    progress(STEPS[0])
    checkpoint = None if exits and is_onnx(source) else _load(source, revision, template)
    with written_whole(folder) as work:
        reports: dict[str, Parity] = {}
        if checkpoint is None:
            copy(source, work)
            progress(STEPS[2])
        else:
            pairs = _write_sides(checkpoint, work)
            progress(STEPS[1])
            _write_graph(checkpoint, pairs, work, exporter)
            progress(STEPS[2])
            reports = _compare_with_torch(checkpoint, pairs, work, int8=int8)
        if exits:
            reports["exits"] = add_exits(work, exits)
        progress(STEPS[3])
        by = None if checkpoint is None else exporter
        files = _manifest(work, source, by, reports)
    fp32, int8_report, exits_report = (reports.get(name) for name in ("fp32", "int8", "exits"))
    return Exported(folder, by, files, fp32, int8_report, exits_report)


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to, which becomes `folder` at the end, or is deleted on an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        work = Path(scratch) / folder.name
        work.mkdir()
        yield work
        shutil.move(str(work), folder)


def _refuse_used(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{folder} is not empty; give a folder that does not exist yet"
        raise ModelError(message)
    if folder.exists():
        folder.rmdir()


def _load(source: str, revision: str | None, template: str | None) -> _Checkpoint:
    # Exporters import onnxruntime by themselves.
    onnxruntime()
    switch_off_reports()
    try:
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForSequenceClassification,
            AutoTokenizer,
        )
    except ImportError as error:
        message = "exporting needs more packages: pip install 'rerank-plugins[export]'"
        raise ModelError(message) from error
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        built = config.architectures or [""]
        decodes = built[0].endswith("ForCausalLM")
        kind = AutoModelForCausalLM if decodes else AutoModelForSequenceClassification
        model, loading = kind.from_pretrained(  # type: ignore[misc]
            source, revision=revision, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
    except BaseException as error:
        # A tokenizer's panic is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(_unloadable(source, error)) from error
    _refuse_missing(source, loading["missing_keys"])
    if not tokenizer.is_fast:
        message = f"the tokenizer of {source!r} has no tokenizer.json; only fast ones can be used"
        raise ModelError(message)
    name = decoder.template_of(source, template) if decodes else None
    return _Checkpoint(source, model.float().eval(), tokenizer, name)


def _refuse_missing(source: str, missing: Collection[str]) -> None:
    """Raise `ModelError` for weights that the checkpoint lacks: they would be random numbers."""
    if missing:
        message = (
            f"the checkpoint {source!r} lacks the weights {', '.join(sorted(missing)[:6])}"
            f"{' ...' if len(missing) > 6 else ''}: it has no trained head that scores pairs. "  # noqa: PLR2004
            "Expected a cross-encoder, saved as a sequence-classification model; an encoder, or a "
            "head that sentence-transformers keeps in modules of its own, is not exported"
        )
        raise ModelError(message)


def _unloadable(source: str, error: BaseException) -> str:
    """Return why a checkpoint does not load."""
    if "trust_remote_code" in str(error):
        return (
            f"the checkpoint {source!r} needs Python code of its own, and code of a model is never "
            "run here; export it with its publisher's tools and give the folder with its ONNX files"
        )
    return (
        f"no checkpoint at {source!r}: {error}. Expected a hub id or a folder with config.json "
        "and weights of a sequence-classification model, or of a decoder"
    )


def _write_sides(checkpoint: _Checkpoint, folder: Path) -> PairTokenizer:
    """Write tokenizer, configuration and a decoder's card; return what makes pairs."""
    name = checkpoint.template
    checkpoint.tokenizer.save_pretrained(str(folder))
    checkpoint.model.config.save_pretrained(str(folder))
    if name is not None:
        decoder.write_card(folder, checkpoint.source, name)
    return PairTokenizer(folder / "tokenizer.json", prompt=PROMPTS[name] if name else None)


def _write_graph(
    checkpoint: _Checkpoint, pairs: PairTokenizer, folder: Path, exporter: Exporter
) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # Exporters print, and warn about themselves; the comparison with torch is what counts.
        warnings.simplefilter("ignore")
        if checkpoint.template is not None:
            decoder.write_graph(checkpoint.model, pairs, folder / "model.onnx")
        else:
            _write_encoder(checkpoint.model, folder, exporter)


def _write_encoder(model: "PreTrainedModel", folder: Path, exporter: Exporter) -> None:
    if exporter == "optimum":
        try:
            from optimum.exporters.onnx import onnx_export_from_model
        except ImportError as error:
            message = (
                "exporter 'optimum' needs optimum-onnx, which pins an older transformers: install "
                "it in an environment of its own (pip install optimum-onnx rerank-plugins)"
            )
            raise ModelError(message) from error
        onnx_export_from_model(model, folder, task="text-classification", do_validation=False)
        return
    import torch
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    ids = torch.full((2, 16), 7, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    made = OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True))  # type: ignore[no-untyped-call,arg-type]
    made.save_pretrained(folder)
    (folder / "export.json").unlink(missing_ok=True)


def _compare_with_torch(
    checkpoint: _Checkpoint, pairs: PairTokenizer, folder: Path, *, int8: bool
) -> dict[str, Parity]:
    """Compare the fp32 graph with torch, and int8 kernels, which are made here, if asked for."""
    graph, int8_graph = folder / "model.onnx", folder / "model_int8.onnx"
    batches = probes(pairs, min(usable_tokens(find(folder)), 256))
    expected = _torch_scores(checkpoint, batches, pairs)
    reports = {"fp32": _compare(expected, graph, batches)}
    if (difference := reports["fp32"].difference) > ROUNDING:
        message = (
            f"the graph of {checkpoint.source!r} gives other scores than torch: they differ by "
            f"{difference:.1e} of their spread, at most {ROUNDING:g} is rounding. "
            "Try exporter='optimum', or report the model"
        )
        raise ModelError(message)
    if int8:
        _quantise(graph, int8_graph)
        reports["int8"] = _compare(expected, int8_graph, batches)
    return reports


def _torch_scores(
    checkpoint: _Checkpoint, batches: Sequence[PairArrays], pairs: PairTokenizer
) -> list[NDArray[np.float32]]:
    import torch

    model = checkpoint.model
    if checkpoint.template is not None:
        return decoder.torch_logits(model, pairs.answers(), batches)
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if typed else ()))
    with torch.no_grad():
        return [
            model(**{name: torch.from_numpy(getattr(batch, name)) for name in names}).logits.numpy()
            for batch in batches
        ]


def _compare(
    expected: Sequence[NDArray[np.float32]], graph: Path, batches: Sequence[PairArrays]
) -> Parity:
    session = open_graph(graph)
    return between(expected, [session.run(batch) for batch in batches])


def _quantise(source: Path, target: Path) -> None:
    """Write dynamic int8 kernels for the products of all layers, a scale per output channel.

    The head stays fp32: it is small, and close scores decide the order.
    """
    import onnx

    tools = quantization()
    model = onnx.load(source)
    # The quantiser takes the exporter's names of axes in declared shapes for contradictions.
    del model.graph.value_info[:]
    tools.quantize_dynamic(
        model,
        target,
        per_channel=True,
        weight_type=tools.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _manifest(
    folder: Path, source: str, exporter: Exporter | None, reports: Mapping[str, Parity]
) -> dict[str, int]:
    """Write manifest.json and return the other files' sizes."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    manifest = {
        "source": source,
        "exporter": exporter,
        "parity": {name: asdict(report) for name, report in reports.items()},
        "files": {
            name: {"sha256": sha256(folder / name), "bytes": size} for name, size in sizes.items()
        },
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return sizes

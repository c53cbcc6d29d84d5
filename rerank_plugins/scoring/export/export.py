"""Turn a checkpoint into a folder that `Reranker` opens: graph, tokenizer, parity, manifest."""

import contextlib
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ..models.files import sha256
from ..models.registry import PROMPTS
from ..onnx.graph.verify import probes
from ..onnx.options import usable_tokens
from ..onnx.session import open_graph
from ..text.tokenizer import PairArrays, PairTokenizer
from . import decoder
from .exits import add_exits, copy, is_onnx
from .parity import TOLERANCE, Parity, between

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Exporter: TypeAlias = Literal["transformers", "optimum"]
STEPS = ("load the checkpoint", "export the graph", "compare with torch", "write the manifest")
_DECODER = "ForCausalLM"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, by which exporter, and how close it is.

    `exporter` is None, and there is no `parity` with torch, where an ONNX model was copied;
    `exits_parity` compares the model cut at its exits with the whole.
    """

    folder: Path
    exporter: Exporter | None
    files: dict[str, int]
    parity: Parity | None
    int8_parity: Parity | None = None
    exits_parity: Parity | None = None


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
    """Export a checkpoint, a hub id or a folder, to ONNX: a cross-encoder, or a decoder.

    Decoders that are asked about a pair need the `template` they were trained with, unless the
    registry knows the model; their graph gives the logits of the two answers. After the layers
    `exits` the model can be left early: they are named on its card. With them the source may also
    be an ONNX model, which is copied. `progress` hears each of `STEPS` as it begins. Runs no code
    of the checkpoint's. Raises `ConfigError` for layers it cannot be cut after, `ModelError`
    where it is no reranker, or its graph gives other scores than torch; then nothing is left in
    `folder`. Needs the extra `export`.
    """
    _refuse_used(folder)
    if exits and is_onnx(source):
        return _split(source, folder, exits, progress)
    progress(STEPS[0])
    model, tokenizer = _load(source, revision)
    name = decoder.template_of(source, template) if _is_decoder(model) else None
    with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as scratch:
        work = Path(scratch) / "model"
        work.mkdir()
        tokenizer.save_pretrained(str(work))
        model.config.save_pretrained(str(work))
        if name is not None:
            decoder.write_card(work, source, name)
        pairs = PairTokenizer(work / "tokenizer.json", prompt=PROMPTS[name] if name else None)
        progress(STEPS[1])
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # Exporters warn about themselves and print; what counts is the comparison below.
            warnings.simplefilter("ignore")
            if name is None:
                _graph(model, work, exporter)
            else:
                decoder.write_graph(model, pairs, work / "model.onnx")
        progress(STEPS[2])
        batches = _batches(work, pairs)
        expected = _torch_scores(model, batches, pairs.answers() if name else None)
        parity = _compare(expected, work / "model.onnx", batches)
        if parity.difference > TOLERANCE:
            message = (
                f"the graph of {source!r} gives other scores than torch: they differ by "
                f"{parity.difference:.1e} of their spread, at most {TOLERANCE:g} is rounding. "
                "Try exporter='optimum', or report the model"
            )
            raise ModelError(message)
        int8_parity = None
        if int8:
            _quantise(work / "model.onnx", work / "model_int8.onnx")
            int8_parity = _compare(expected, work / "model_int8.onnx", batches)
        exits_parity = add_exits(work, exits) if exits else None
        progress(STEPS[3])
        reports = {"fp32": parity, "int8": int8_parity, "exits": exits_parity}
        files = _manifest(work, source, exporter, reports)
        shutil.move(str(work), folder)
    return Exported(folder, exporter, files, parity, int8_parity, exits_parity)


def _split(
    source: str, folder: Path, exits: Sequence[int], progress: Callable[[str], None]
) -> Exported:
    """Copy an ONNX model and give it exits."""
    with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as scratch:
        work = Path(scratch) / "model"
        work.mkdir()
        progress(STEPS[0])
        copy(source, work)
        progress(STEPS[2])
        parity = add_exits(work, exits)
        progress(STEPS[3])
        files = _manifest(work, source, None, {"exits": parity})
        shutil.move(str(work), folder)
    return Exported(folder, None, files, None, exits_parity=parity)


def _refuse_used(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{folder} is not empty; give a folder that does not exist yet"
        raise ModelError(message)
    if folder.exists():
        folder.rmdir()


def _is_decoder(model: "PreTrainedModel") -> bool:
    return type(model).__name__.endswith(_DECODER)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _load(source: str, revision: str | None) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
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
        built = AutoConfig.from_pretrained(source, revision=revision).architectures or [""]
        kind = (
            AutoModelForCausalLM
            if built[0].endswith(_DECODER)
            else AutoModelForSequenceClassification
        )
        model = kind.from_pretrained(source, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        message = (
            f"no checkpoint at {source!r}: {error}. Expected a hub id or a folder with config.json "
            "and weights of a sequence-classification model, or of a decoder"
        )
        raise ModelError(message) from error
    if not tokenizer.is_fast:
        message = f"the tokenizer of {source!r} has no tokenizer.json; only fast ones can be used"
        raise ModelError(message)
    return model.float().eval(), tokenizer


def _graph(model: "PreTrainedModel", folder: Path, exporter: Exporter) -> None:
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


def _batches(folder: Path, tokenizer: PairTokenizer) -> tuple[PairArrays, ...]:
    from ..models.files import find

    return probes(tokenizer, min(usable_tokens(find(folder)), 256))


def _torch_scores(
    model: "PreTrainedModel", batches: tuple[PairArrays, ...], answers: tuple[int, int] | None
) -> list[NDArray[np.float32]]:
    import torch

    if answers is not None:
        return decoder.torch_logits(model, answers, batches)
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if typed else ()))
    with torch.no_grad():
        return [
            model(**{name: torch.from_numpy(getattr(batch, name)) for name in names}).logits.numpy()
            for batch in batches
        ]


def _compare(
    expected: list[NDArray[np.float32]], graph: Path, batches: tuple[PairArrays, ...]
) -> Parity:
    session = open_graph(graph)
    return between(expected, [session.run(batch) for batch in batches])


def _quantise(source: Path, target: Path) -> None:
    """Write dynamic int8 kernels for the products of all layers, a scale per output channel.

    The head stays fp32: it is small, and scores near each other decide the order.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # The exporter's shape notes name axes in ways that the quantiser takes for contradictions.
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        target,
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _manifest(
    folder: Path,
    source: str,
    exporter: Exporter | None,
    reports: Mapping[str, Parity | None],
) -> dict[str, int]:
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    manifest = {
        "source": source,
        "exporter": exporter,
        "parity": {name: asdict(one) for name, one in reports.items() if one is not None},
        "files": {
            name: {"sha256": sha256(path), "bytes": path.stat().st_size}
            for name, path in files.items()
        },
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return {name: path.stat().st_size for name, path in files.items()}

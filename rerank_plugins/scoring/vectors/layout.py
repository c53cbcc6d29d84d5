"""What a model folder says about an encoder, in the layout of sentence-transformers.

The layout is a list of modules: a transformer, a pooling, and any number of dense layers and
normalisations behind it; besides, prompts, the length limit, and how vectors are compared.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import numpy as np

from ...errors import ModelError
from .. import Floats
from ..models import files as model_files
from ..models.content import GraphFile, Listed, check, manifest, read, read_json
from ..models.files import ModelFiles, choose_graph, cpu_features
from ..models.hub import Hub, snapshot
from . import weights

PoolingMode: TypeAlias = Literal[
    "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
]
Similarity: TypeAlias = Literal["cosine", "dot"]

_FOLDER = Path(model_files.__file__).parents[2] / "models" / "encoder"
_CONFIG, _LIMITS = "config_sentence_transformers.json", "sentence_bert_config.json"
_MODULES = "modules.json"
# Several modes are joined in this order.
_OLD_MODES: Mapping[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _identity(values: Floats) -> Floats:
    return values


def _relu(values: Floats) -> Floats:
    positive: Floats = np.maximum(values, np.float32(0.0))
    return positive


def _sigmoid(values: Floats) -> Floats:
    share: Floats = np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * values)
    return share


def _silu(values: Floats) -> Floats:
    return values * _sigmoid(values)


def _gelu(values: Floats) -> Floats:
    erf: Floats = np.vectorize(math.erf, otypes=[np.float32])(values * np.float32(0.5**0.5))
    return np.float32(0.5) * values * (np.float32(1.0) + erf)


# Named as torch names them.
_ACTIVATIONS: Mapping[str, Callable[[Floats], Floats]] = {
    "Identity": _identity,
    "Tanh": np.tanh,
    "ReLU": _relu,
    "Sigmoid": _sigmoid,
    "SiLU": _silu,
    "GELU": _gelu,
}
_PASSAGE_PROMPTS = ("document", "passage", "corpus")
_MATRIX_AXES = 2


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer on the pooled vector: weight [out, in], bias [out], activation."""

    weight: Floats
    bias: Floats
    activation: str

    def apply(self, vectors: Floats) -> Floats:
        """Map vectors [n, in] to [n, out]."""
        return _ACTIVATIONS[self.activation](np.matmul(vectors, self.weight.T) + self.bias)


@dataclass(frozen=True, slots=True)
class Layout:
    """How an encoder makes a vector of the last layer's rows.

    pooling: what becomes of the rows [length, width]; several are joined
    include_prompt: the rows of a prompt count in the pooling
    steps: what follows the pooling; None: scale to length 1
    query_prompt, passage_prompt: what precedes a text
    max_tokens: the most tokens of a text, special ones included; None: not said
    lower_case: texts are lower-cased first
    similarity: how two vectors are compared
    weight_hashes: sha256 of the weights that do not lie in the graph
    """

    pooling: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True
    steps: tuple[Dense | None, ...] = ()
    query_prompt: str = ""
    passage_prompt: str = ""
    max_tokens: int | None = None
    lower_case: bool = False
    similarity: Similarity = "cosine"
    weight_hashes: tuple[str, ...] = ()


def find_encoder(model: str | Path, *, hub: Hub | None = None) -> ModelFiles:
    """Resolve an encoder: "embedded", an .onnx file, a folder, or a hub id such as "org/name".

    `hub` only matters for hub ids. Raises `ModelError`.
    """
    if model == model_files.EMBEDDED:
        # Its tokenizer is that of the embedded cross-encoder, which `find` checks.
        cross = model_files.find(model_files.EMBEDDED)
        own = manifest(_FOLDER, required=True) or {}
        check(own)
        listed = {**(cross.listed or {}), **own}
        return ModelFiles(
            "embedded-encoder",
            GraphFile.of(_FOLDER / "model.onnx", listed),
            cross.tokenizer,
            read_json(_FOLDER / "config.json", listed),
            {},
            read_json(_FOLDER / "card.json", listed),
        )
    path = Path(model).expanduser()
    if path.exists() or path.suffix == ".onnx":
        return model_files.find(model)
    folder = snapshot(str(model), hub or Hub(), partial(_needed, str(model)))
    return replace(model_files.find(folder), name=str(model), revision=folder.name)


def read_layout(files: ModelFiles) -> Layout:
    """Read an encoder's layout; without modules.json it is a mean. Raises `ModelError`."""
    folder = _home(files)
    listed = files.listed
    config, limits = (read_json(folder / name, listed) for name in (_CONFIG, _LIMITS))
    prompts = config.get("prompts")
    known = dict(prompts) if isinstance(prompts, Mapping) else {}
    default = known.get(config.get("default_prompt_name")) or ""
    passage = next((known[name] for name in _PASSAGE_PROMPTS if name in known), default)
    similarity = config.get("similarity_fn_name") or "cosine"
    if similarity not in {"cosine", "dot"}:
        message = f"model {files.name!r} compares vectors by {similarity!r}; expected cosine or dot"
        raise ModelError(message)
    most = limits.get("max_seq_length")
    layout = Layout(
        query_prompt=str(known.get("query", default)),
        passage_prompt=str(passage),
        max_tokens=most if isinstance(most, int) else None,
        lower_case=limits.get("do_lower_case") is True,
        similarity="dot" if similarity == "dot" else "cosine",
    )
    for kind, place in _modules(folder, listed):
        layout = _with_module(layout, kind, folder / place, files)
    return layout


def _home(files: ModelFiles) -> Path:
    """Return the folder with the layout's files: the graph's, the one above, the tokenizer's."""
    folders = (files.graph.parent, files.graph.parent.parent, files.tokenizer.parent)
    found = (folder for folder in folders if (folder / _MODULES).is_file())
    return next(found, files.tokenizer.parent)


def _modules(folder: Path, listed: Listed) -> list[tuple[str, str]]:
    """Return kind and folder of each module."""
    path = folder / _MODULES
    if not path.is_file():
        return []
    try:
        modules = json.loads(read(path, listed))
        return [(str(m["type"]).rsplit(".", 1)[-1], str(m["path"])) for m in modules]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{path} is no list of modules ({error}); fetch the model again"
        raise ModelError(message) from error


def _with_module(layout: Layout, kind: str, folder: Path, files: ModelFiles) -> Layout:
    if kind == "Pooling":
        return _with_pooling(layout, read_json(folder / "config.json", files.listed), folder)
    if kind == "Normalize":
        return replace(layout, steps=(*layout.steps, None))
    if kind == "Dense":
        dense, sha256 = _dense(folder, files.listed)
        hashes = (*layout.weight_hashes, sha256)
        return replace(layout, steps=(*layout.steps, dense), weight_hashes=hashes)
    if kind not in {"Transformer", "Dropout"}:
        message = (
            f"model {files.name!r} has a module {kind}; expected Transformer, Pooling, Dense and "
            "Normalize: use its server through a remote stage"
        )
        raise ModelError(message)
    return layout


def _with_pooling(layout: Layout, config: Mapping[str, object], folder: Path) -> Layout:
    listed = config.get("pooling_mode")
    if listed is None:
        listed = [mode for key, mode in _OLD_MODES.items() if config.get(key) is True] or "mean"
    names = [listed] if isinstance(listed, str) else listed
    wanted = [str(name) for name in names] if isinstance(names, Sequence) else []
    modes = [mode for name in wanted for mode in _OLD_MODES.values() if mode == name]
    if not modes or len(modes) < len(wanted):
        message = f"{folder} pools by {listed}; expected {', '.join(_OLD_MODES.values())}"
        raise ModelError(message)
    return replace(
        layout, pooling=tuple(modes), include_prompt=config.get("include_prompt") is not False
    )


def _dense(folder: Path, listed: Listed) -> tuple[Dense, str]:
    """Read a Dense module, and the sha256 of its weights. Raises `ModelError`."""
    config = read_json(folder / "config.json", listed)
    activation = str(config.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    found, sha256 = weights.read(folder, listed)
    weight = found.get("linear.weight")
    odd = [
        name
        for name in ("module_input_name", "module_output_name")
        if config.get(name) not in {None, "sentence_embedding"}
    ]
    if weight is None or weight.ndim != _MATRIX_AXES or activation not in _ACTIVATIONS:
        message = (
            f"{folder} is a Dense module with {activation} and weights {sorted(found)}; expected "
            f"linear.weight, and one of {', '.join(_ACTIVATIONS)}"
        )
        raise ModelError(message)
    if odd or config.get("use_residual"):
        message = f"{folder} is a Dense module on something else than the pooled vector"
        raise ModelError(message)
    bias = found.get("linear.bias", np.zeros(len(weight), np.float32))
    return Dense(weight, bias, activation), sha256


def _needed(name: str, names: Sequence[str]) -> list[str]:
    """Return which of a repository's files to fetch."""
    graph = choose_graph(names, "fp32", cpu_features())
    if graph is None:
        message = (
            f"model {name!r} has no ONNX file on the hub. Export it once with: optimum-cli export "
            f"onnx --task feature-extraction --model {name} ./{name.rsplit('/', 1)[-1]}-onnx"
        )
        raise ModelError(message)
    sides = {*model_files.SIDE_FILES, _MODULES, _CONFIG, _LIMITS}
    folders = {
        PurePosixPath(path).parent for path in names if PurePosixPath(path).name == "config.json"
    }
    parts = [
        str(folder / file)
        for folder in folders
        if len(folder.parts) == 1
        for file in ("config.json", *weights.WEIGHT_FILES)
    ]
    return [*sorted(sides), *sorted(parts), graph, f"{graph}.data", f"{graph}_data"]

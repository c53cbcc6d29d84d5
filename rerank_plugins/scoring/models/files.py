"""Find a model's files: in the package, in a folder, or on the Hugging Face hub."""

import contextlib
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from ...errors import ModelError, ModelUnavailable
from .content import GraphFile, Listed, check, expected, manifest, read_json, sha256
from .hub import Hub, snapshot

Precision: TypeAlias = Literal["auto", "fp32", "int8"]
"""Which of a model's graphs to prefer; "auto" finds what "fp32" does, for `precision.choose`."""

EMBEDDED, LEXICAL = "embedded", "lexical"
_EMBEDDED_FOLDER = Path(__file__).parents[2] / "models" / "embedded"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

# What the tokenizer and the limits need; never torch weights or remote code.
SIDE_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "manifest.json",
    "card.json",
)

_FP32_NAMES = ("model.onnx", "onnx/model.onnx")

# The CPU feature a quantised file was made for, best first (sentence-transformers' file names).
_INT8_BY_FEATURE = (
    ("avx512_vnni", "model_qint8_avx512_vnni.onnx"),
    ("avx512f", "model_qint8_avx512.onnx"),
    ("avx2", "model_quint8_avx2.onnx"),
    ("arm64", "model_qint8_arm64.onnx"),
)

_INT8_ANYWHERE = ("model_quantized.onnx", "model_int8.onnx", "model_uint8.onnx")
_INT8_NAMES = frozenset({*_INT8_ANYWHERE, *(name for _, name in _INT8_BY_FEATURE)})


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files, found and, where there is a manifest, verified.

    config, tokenizer_config, card: the parsed JSON files, {} where there is none.
    kernels_reason: why this graph was chosen, where its card allows several kinds of kernels.
    int8: True to make int8 kernels at load: int8 is wanted, and there is no file with them.
    """

    name: str
    graph_file: GraphFile
    tokenizer: Path
    config: Mapping[str, object]
    tokenizer_config: Mapping[str, object]
    card: Mapping[str, object]
    revision: str | None = None
    kernels_reason: str = ""
    int8: bool = False

    @property
    def graph(self) -> Path:
        """The graph's path."""
        return self.graph_file.path

    @property
    def listed(self) -> Listed:
        """The hashes by the model's manifest, None without one."""
        return self.graph_file.listed

    def tokenizer_sha256(self) -> str:
        """Hash the tokenizer's file."""
        return expected(self.tokenizer, self.listed) or sha256(self.tokenizer)


def find(model: str | Path, *, precision: Precision = "fp32", hub: Hub | None = None) -> ModelFiles:
    """Resolve `model`: "embedded", an .onnx file, a folder, or a hub id such as "org/name".

    `hub` only matters for hub ids. Raises `ModelError`.
    """
    found = _found(model, precision, hub)
    return replace(found, int8=precision == "int8" and found.graph.name not in _INT8_NAMES)


def _found(model: str | Path, precision: Precision, hub: Hub | None) -> ModelFiles:
    if model == EMBEDDED:
        return _in_folder(_EMBEDDED_FOLDER, EMBEDDED, precision, must_verify=True)
    path = local_path(model)
    if path is None:
        return _from_hub(str(model), precision, hub or Hub())
    with _readable(model):
        return _in_folder(path, str(model), precision) if path.is_dir() else _from_file(path)


def local_path(model: str | Path) -> Path | None:
    """Return the file or folder that `model` names, None for a hub id; nobody is asked.

    Raises `ModelError` for what is neither.
    """
    path, name = located(model), str(model)
    with _readable(model):
        if path.is_file() or path.is_dir():
            return path
    if _HUB_ID.fullmatch(name) and not name.endswith(".onnx"):
        return None
    message = (
        f"no model at {name[:200]!r}: it is neither a file, nor a folder, nor a hub id. Give a "
        'folder with model.onnx and tokenizer.json, an .onnx file, a hub id like "org/name", '
        'or "embedded"'
    )
    raise ModelError(message)


@contextlib.contextmanager
def _readable(model: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = str(model)[:200]
        message = f"no model at {name!r}: {error.strerror}; give a readable folder or file"
        raise ModelError(message) from error


def find_without_graph(model: str | Path, *, hub: Hub | None = None) -> ModelFiles:
    """Resolve a model that runs elsewhere: its tokenizer and configuration, without a graph.

    `graph` is a path without a file. Raises `ModelError`.
    """
    folder = _EMBEDDED_FOLDER if model == EMBEDDED else located(model)
    if not folder.is_dir() and _HUB_ID.fullmatch(str(model)):
        folder = snapshot(str(model), hub or Hub(), _sides_alone)
    if not (folder / "tokenizer.json").is_file():
        message = (
            f"no tokenizer at {str(model)[:200]!r}; expected a folder with tokenizer.json, a hub "
            'id like "org/name", or "embedded"'
        )
        raise ModelError(message)
    listed = manifest(folder, required=model == EMBEDDED)
    return _describe(folder, str(model), GraphFile(folder / "model.onnx", {}, listed))


def located(model: str | Path) -> Path:
    """Return a model's place as a path; `~` is the user's home. Raises `ModelError` without one."""
    try:
        return Path(model).expanduser()
    except RuntimeError as error:
        raise ModelError(f"no model at {str(model)[:200]!r}: {error}; give a whole path") from error


def padding(files: ModelFiles) -> int | str | None:
    """Return what pads a batch: the model's padding id, else its tokenizer's padding token."""
    number = files.config.get("pad_token_id")
    if isinstance(number, int):
        return number
    token = files.tokenizer_config.get("pad_token")
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def cpu_features() -> frozenset[str]:
    """Return the CPU's vector extensions, named as in Linux; "arm64" on 64-bit Arm."""
    machine = platform.machine().lower()
    if machine in {"arm64", "aarch64"}:
        return frozenset({"arm64"})
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    flags = re.search(r"^flags\s*:(.*)$", text, flags=re.MULTILINE)
    return frozenset(flags.group(1).split()) if flags else frozenset()


def choose_graph(
    names: Iterable[str], precision: Precision, features: frozenset[str]
) -> str | None:
    """Choose among a model's files the graph for a precision and a CPU, None if there is none.

    Without a graph of that precision, one of the other is chosen.

    >>> names = ["onnx/model.onnx", "onnx/model_quint8_avx2.onnx"]
    >>> choose_graph(names, "int8", frozenset({"avx2"}))
    'onnx/model_quint8_avx2.onnx'
    """
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    fp32 = [name for name in _FP32_NAMES if name in graphs]
    wanted = [name for feature, name in _INT8_BY_FEATURE if feature in features]
    int8 = [
        graph
        for name in (*wanted, *_INT8_ANYWHERE)
        for graph in graphs
        if PurePosixPath(graph).name == name
    ]
    ranked = (int8 + fp32) if precision == "int8" else (fp32 + int8)
    if ranked:
        return ranked[0]
    return graphs[0] if len(graphs) == 1 else None


def _from_file(path: Path) -> ModelFiles:
    if path.suffix != ".onnx":
        message = (
            f"{path} is a {path.suffix or 'suffix-less'} file; expected an .onnx graph or a "
            "folder. Export a checkpoint with: rerank-plugins export MODEL OUT_DIR"
        )
        raise ModelError(message)
    # In the layout onnx/model.onnx the tokenizer lies one folder up.
    folders = (path.parent, path.parent.parent)
    home = next((folder for folder in folders if (folder / "tokenizer.json").is_file()), None)
    if home is None:
        message = f"{path} has no tokenizer.json beside it; copy the model's tokenizer.json there"
        raise ModelError(message)
    listed = manifest(home)
    if listed is not None:
        check(listed)
    return _describe(home, str(path), GraphFile.of(path, listed))


def _in_folder(
    folder: Path,
    name: str,
    precision: Precision,
    *,
    must_verify: bool = False,
    cached: bool = False,
) -> ModelFiles:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx")]
    chosen = choose_graph(names, precision, cpu_features())
    if chosen is None or not (folder / "tokenizer.json").is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
        remedy = (
            "Only a part of it is in the local cache: fetch it once while online"
            if cached
            else f"Make them with: rerank-plugins export {name} OUT_DIR"
        )
        message = (
            f"{folder} is no ONNX model: found {found}; expected model.onnx (or onnx/model.onnx) "
            f"and tokenizer.json. {remedy}"
        )
        raise (ModelUnavailable if cached else ModelError)(message)
    listed = manifest(folder, required=must_verify)
    if listed is not None:
        check(listed, partial=cached)
    return _describe(folder, name, GraphFile.of(folder / chosen, listed))


def _describe(folder: Path, name: str, graph: GraphFile) -> ModelFiles:
    tokenizer = folder / "tokenizer.json"
    expected(tokenizer, graph.listed)
    return ModelFiles(
        name=name,
        graph_file=graph,
        tokenizer=tokenizer,
        config=read_json(folder / "config.json", graph.listed),
        tokenizer_config=read_json(folder / "tokenizer_config.json", graph.listed),
        card=read_json(folder / "card.json", graph.listed),
    )


def _from_hub(name: str, precision: Precision, hub: Hub) -> ModelFiles:
    folder = snapshot(name, hub, partial(_needed, name, precision=precision))
    return replace(_in_folder(folder, name, precision, cached=True), revision=folder.name)


def _sides_alone(_names: Sequence[str]) -> list[str]:
    return list(SIDE_FILES)


def _needed(name: str, names: Sequence[str], precision: Precision) -> list[str]:
    """Return which of a repository's files to fetch."""
    graph = choose_graph(names, precision, cpu_features())
    if graph is None:
        folder = name.rsplit("/", maxsplit=1)[-1]
        message = (
            f"model {name!r} has no ONNX file on the hub. Export it once, then use the folder:\n"
            f"  pip install 'rerank-plugins[export]'\n"
            f"  rerank-plugins export {name} ./{folder}-onnx"
        )
        raise ModelError(message)
    # Weights beyond 2 GB lie in a sidecar, named by either of two conventions.
    return [*SIDE_FILES, graph, f"{graph}.data", f"{graph}_data"]

"""What a model's files hold: hashed, checked against the manifest, and read once."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from ...errors import ModelError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import ModelProto, TensorProto

Listed: TypeAlias = Mapping[Path, str] | None
"""The sha256 of every file that a model's manifest lists; None without a manifest."""

# Every reference to weights in another file has this key.
_LOCATION = "location"


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph on disk.

    weights: the files of weights that the graph names, by the names it gives them
    """

    path: Path
    weights: Mapping[str, Path]
    listed: Listed = None

    @classmethod
    def of(cls, graph: "Path | GraphFile", listed: Listed = None) -> "GraphFile":
        """Read which weights a graph names. Raises `ModelError` for those outside its folder."""
        if isinstance(graph, GraphFile):
            return graph
        data = read(graph, listed)
        names: set[str] = set()
        # Parsing takes long, and most graphs hold their weights.
        if _LOCATION.encode() in data:
            names = {place for tensor in external(parse(graph, data)) for place in places(tensor)}
        weights = {name: _beside(graph, name) for name in sorted(names)}
        for path in weights.values():
            expected(path, listed)
        return cls(graph, weights, listed)

    @property
    def files(self) -> tuple[Path, ...]:
        """The graph's file and those of its weights."""
        return self.path, *self.weights.values()

    def sha256(self) -> str:
        """Hash the graph's file, together with its weights where they lie in other files."""
        hashes = [expected(path, self.listed) or sha256(path) for path in self.files]
        return hashes[0] if len(hashes) == 1 else fingerprint(hashes)

    def size_bytes(self) -> int:
        """Return the size of all files. Raises `ModelError`."""
        try:
            return sum(path.stat().st_size for path in self.files)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def read(self) -> tuple[bytes, dict[str, bytes]]:
        """Return the graph and its weights by name, as the manifest says. Raises `ModelError`."""
        weights = {name: read(path, self.listed) for name, path in self.weights.items()}
        return read(self.path, self.listed), weights


def sha256(path: Path) -> str:
    """Hash a file in constant memory. Raises `ModelError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def fingerprint(facts: Iterable[str]) -> str:
    """Return one sha256 of several facts, such as the hashes of files and the options used."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def read(path: Path, listed: Listed = None) -> bytes:
    """Return a file's bytes; with a manifest, those that it lists. Raises `ModelError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if listed is not None:
        _match(path, hashlib.sha256(data).hexdigest(), listed)
    return data


def read_json(path: Path, listed: Listed = None) -> Mapping[str, object]:
    """Return a JSON object, {} where there is no file. Raises `ModelError` for anything else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(read(path, listed).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{path} is not readable JSON ({error}); fetch the model again"
        raise ModelError(message) from error
    if not isinstance(value, dict):
        message = f"{path} holds a JSON {type(value).__name__}; expected an object"
        raise ModelError(message)
    return value


def manifest(folder: Path, *, required: bool = False) -> Listed:
    """Return what a folder's manifest.json lists, None without a manifest. Raises `ModelError`.

    Other programs also write a manifest.json; only ours has "files".
    """
    facts = read_json(folder / "manifest.json")
    if not required and "files" not in facts:
        return None
    listed = facts.get("files")
    if not isinstance(listed, Mapping) or not listed or any(map(_leaves, listed)):
        message = (
            f'{folder / "manifest.json"} lists no files; expected {{"files": {{name: '
            '{"sha256": ...}}}, of files in its folder. Fetch the model again'
        )
        raise ModelError(message)
    return {
        folder / name: str(facts.get("sha256") if isinstance(facts, Mapping) else None)
        for name, facts in listed.items()
    }


def check(listed: Mapping[Path, str], *, partial: bool = False) -> None:
    """Raise `ModelError` for a listed file with other content, or none unless `partial`."""
    for path in listed:
        if path.is_file():
            _match(path, sha256(path), listed)
        elif not partial:
            _match(path, "no such file", listed)


def verify(folder: Path, *, partial: bool = False) -> int:
    """Check every file that manifest.json lists; return how many. Raises `ModelError`.

    `partial` skips absent files: the hub's cache holds only those that were needed.
    """
    listed = manifest(folder, required=True) or {}
    check(listed, partial=partial)
    return len(listed)


def expected(path: Path, listed: Listed) -> str | None:
    """Return a file's sha256 by the manifest, None without one. Raises `ModelError`."""
    if listed is None:
        return None
    if path not in listed:
        message = (
            f"{path} is not in the model's manifest, which lists every file that is opened; "
            "remove the file, or export or fetch the model again"
        )
        raise ModelError(message)
    return listed[path]


def parse(path: Path, data: bytes) -> "ModelProto":
    """Parse a graph without its external weights. Raises `ModelError`."""
    import onnx

    try:
        return onnx.load_model_from_string(data)
    except Exception as error:
        message = f"{path} is not a readable ONNX graph ({error}); export the model again"
        raise ModelError(message) from error


def external(message: "Message") -> Iterator["TensorProto"]:
    """Find the tensors of a graph that lie in other files, in subgraphs and attributes too."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        if message.data_location == TensorProto.EXTERNAL:
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "__len__") else (value,):
                yield from external(part)


def places(tensor: "TensorProto") -> list[str]:
    """Return every file that a tensor says it lies in."""
    return [entry.value for entry in tensor.external_data if entry.key == _LOCATION]


def _beside(graph: Path, name: str) -> Path:
    """Return where weights lie: beside the graph or, as in the hub's cache, beside its target."""
    path = graph.parent / name
    homes = {graph.parent.resolve(), graph.resolve().parent}
    if _leaves(name) or not any(path.resolve().is_relative_to(home) for home in homes):
        message = f"{graph} keeps weights in {name[:80]!r}; expected a file beside it"
        raise ModelError(message)
    if not path.is_file():
        message = (
            f"{graph} keeps weights in the sidecar {name[:80]!r}, which is not there; copy it "
            "beside the graph, or export or fetch the model again"
        )
        raise ModelError(message)
    return path


def _leaves(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]


def _match(path: Path, found: str, listed: Listed) -> None:
    wanted = expected(path, listed)
    if found != wanted:
        message = (
            f"{path} does not match its manifest: found sha256 {found}, expected {wanted}. "
            "The file is damaged or was replaced; fetch the model again"
        )
        raise ModelError(message)


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path} cannot be read ({error.strerror}); fetch the model again")

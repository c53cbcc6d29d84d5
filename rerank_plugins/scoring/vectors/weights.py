"""Read a small module's weights from safetensors or from a torch archive, without torch.

By hand: neither format's library is among the dependencies, and torch's archives are pickles, which
must not run whatever they name.
"""

import hashlib
import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from ...errors import ModelError
from .. import Floats
from ..models import content
from ..models.content import Listed

_SAFETENSORS, _TORCH = "model.safetensors", "pytorch_model.bin"
_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
}
WEIGHT_FILES = (_SAFETENSORS, _TORCH)
"""Where a module's weights lie; the first that is there counts."""


def read(folder: Path, listed: Listed = None) -> tuple[dict[str, Floats], str]:
    """Return a module's tensors as float32, and the sha256 of their file. Raises `ModelError`.

    With a manifest the file is the one that it lists.
    """
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        message = f"{folder} holds no weights; expected {' or '.join(WEIGHT_FILES)}"
        raise ModelError(message)
    data = content.read(path, listed)
    try:
        found = _safetensors(data) if path.name == _SAFETENSORS else _torch(data)
        return found, hashlib.sha256(data).hexdigest()
    except Exception as error:
        message = f"the weights in {path} cannot be read: {error}; fetch the model again"
        raise ModelError(message) from error


def _safetensors(data: bytes) -> dict[str, Floats]:
    """Read 8 bytes with the header's length, the header in JSON, and the values."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found: dict[str, Floats] = {}
    for name, facts in header.items():
        if name != "__metadata__":
            first, last = facts["data_offsets"]
            values = _float32(data[start + first : start + last], facts["dtype"])
            found[name] = values.reshape(facts["shape"])
    return found


def _torch(data: bytes) -> dict[str, Floats]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(listing) as file:
            loaded = _TensorUnpickler(file, archive, listing.removesuffix(".pkl")).load()
    return {str(name): np.ascontiguousarray(values) for name, values in dict(loaded).items()}


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles tensors of floats, and nothing else."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> object:
        """Return the few names that a file of tensors needs; refuse every other."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise ModelError(f"it names {module}.{name}; expected tensors alone")

    def persistent_load(self, reference: tuple[str, str, str, str, int]) -> Floats:
        """Return a storage's values."""
        _, dtype, key, _, _ = reference
        return _float32(self._archive.read(f"{self._folder}/{key}"), dtype)


def _rebuilt(
    storage: Floats, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Floats:
    """Return a view of a storage, checked by numpy against the storage's end."""
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if offset < 0 or min(stride, default=0) < 0 or last >= max(1, storage.size):
        raise ModelError("a tensor reaches beyond its storage")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides)


def _float32(data: bytes, dtype: str) -> Floats:
    if dtype not in _DTYPES:
        raise ModelError(f"it holds {dtype}; expected one of {', '.join(_DTYPES)}")
    values = np.frombuffer(data, _DTYPES[dtype])
    if dtype == "BF16":
        # The upper half of a float32.
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)

"""Vectors of passages that were encoded before: bounded, shared by processes, never a wrong one.

Keys hash the encoder's identity and the passage's text; rows hold a vector as int8 or fp16. A row's
checksum covers its key too, so that a row that is damaged or in the wrong place is no row. Vectors
are derived from text: whoever may not store the text may not store them either.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from .. import Floats

RowPrecision: TypeAlias = Literal["int8", "fp16"]

DEFAULT_BYTES = 64 * 2**20
"""What a memory may take by default: about 100,000 passages of 384 numbers."""

_KEY_BYTES, _CHECK_BYTES = 16, 8
_LARGEST: Mapping[RowPrecision, float] = {"int8": 127.0, "fp16": 1.0}
_TYPES: Mapping[RowPrecision, str] = {"int8": "i1", "fp16": "<f2"}
# What an entry takes in memory besides its row: a key, a place, and their share of a dictionary.
_ENTRY_BYTES = 208


class RowStore(Protocol):
    """Rows of bytes under hashed keys; it may forget any of them. Thread-safe."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, None where there is none."""

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep rows."""

    def flush(self) -> None:
        """Return once all rows are where other processes find them, if any can."""

    def close(self) -> None:
        """Flush, and release what the store holds."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of n passages.

    known: [n], true where there is a vector
    vectors: [n, dimensions] float32, zero where there is none
    truncated: [n] tokens of each passage that the encoder did not read
    """

    known: NDArray[np.bool_]
    vectors: Floats
    truncated: NDArray[np.int64]


class VectorMemory:
    """The vectors of one encoder in a store. Thread-safe.

    `model` identifies all that decides a vector; vectors have `dimensions` numbers. `unit` scales
    vectors to length 1 again, which rounding moves.
    """

    def __init__(
        self,
        store: RowStore,
        model: str,
        dimensions: int,
        *,
        precision: RowPrecision = "int8",
        unit: bool = True,
    ) -> None:
        self._store = store
        self._model = hashlib.blake2b(f"{model} {precision}".encode(), digest_size=32).digest()
        self._precision = precision
        self._unit = unit
        self._row = row_type(dimensions, precision)

    def keys(self, passages: Sequence[str]) -> list[bytes]:
        """Hash passages, and with them the encoder."""
        return [
            hashlib.blake2b(
                passage.encode("utf-8", "surrogatepass"),
                key=self._model,
                digest_size=_KEY_BYTES,
            ).digest()
            for passage in passages
        ]

    def get(self, keys: Sequence[bytes]) -> Remembered:
        """Return the vectors of those that are remembered."""
        found = self._store.get(keys)
        size = self._row.itemsize
        places = [
            place
            for place, (key, row) in enumerate(zip(keys, found, strict=True))
            if row is not None and len(row) == size and row[:_CHECK_BYTES] == self._check(key, row)
        ]
        known = np.zeros(len(keys), np.bool_)
        vectors = np.zeros((len(keys), self._row["values"].shape[0]), np.float32)
        truncated = np.zeros(len(keys), np.int64)
        if places:
            rows = np.frombuffer(b"".join(found[place] or b"" for place in places), self._row)
            known[places], vectors[places] = True, self._vectors(rows)
            truncated[places] = rows["truncated"]
        return Remembered(known, vectors, truncated)

    def put(self, keys: Sequence[bytes], vectors: Floats, truncated: Sequence[int]) -> Floats:
        """Remember vectors [n, dimensions] and the tokens that were not read.

        Return the vectors as they will be remembered: whoever scores with these gives a passage
        the same score before and after.
        """
        rows = np.zeros(len(keys), self._row)
        largest = np.abs(vectors).max(axis=1, initial=0.0) / _LARGEST[self._precision]
        scale = np.where(largest > 0.0, largest, 1.0).astype(np.float32)
        values = vectors / scale[:, None]
        rows["values"] = np.rint(values) if self._precision == "int8" else values
        rows["scale"], rows["truncated"] = scale, truncated
        made: dict[bytes, bytes] = {}
        for key, row in zip(keys, rows, strict=True):
            data = row.tobytes()
            made[key] = self._check(key, data) + data[_CHECK_BYTES:]
        self._store.put(made)
        return self._vectors(rows)

    def flush(self) -> None:
        """Return once all vectors are where other processes find them, if any can."""
        self._store.flush()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _vectors(self, rows: "NDArray[np.void]") -> Floats:
        values = rows["values"].astype(np.float32) * rows["scale"][:, None]
        if self._unit:
            norms = np.linalg.norm(values, axis=1, keepdims=True)
            values /= np.maximum(norms, np.float32(1e-12))
        return np.asarray(values, np.float32)

    def _check(self, key: bytes, row: bytes) -> bytes:
        whole = hashlib.blake2b(key, key=self._model, digest_size=_CHECK_BYTES)
        whole.update(memoryview(row)[_CHECK_BYTES:])
        return whole.digest()


def row_type(dimensions: int, precision: RowPrecision) -> "np.dtype[np.void]":
    """Return the layout of a row: a checksum, a scale, tokens not read, values."""
    return np.dtype(
        [
            ("check", f"V{_CHECK_BYTES}"),
            ("scale", "<f4"),
            ("truncated", "<u4"),
            ("values", _TYPES[precision], (dimensions,)),
        ]
    )


class LocalRows:
    """Rows in this process's memory, bounded by bytes; those not used lately go first.

    All rows have `row_bytes`. Hand-written because an array takes half of what a dictionary of
    bytes takes. A row in use is passed over once when one must go (the clock algorithm).
    """

    def __init__(self, max_bytes: int, row_bytes: int) -> None:
        self._capacity = max_bytes // (row_bytes + _ENTRY_BYTES)
        if self._capacity < 1:
            message = f"{max_bytes} bytes hold no vector; one takes {row_bytes + _ENTRY_BYTES}"
            raise ConfigError(message)
        # Pages are taken from the system when rows are written.
        self._rows = np.zeros((self._capacity, row_bytes), np.uint8)
        self._used = np.zeros(self._capacity, np.bool_)
        self._places: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._hand = 0
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, None where there is none; mark them as used."""
        with self._lock:
            places = [self._places.get(key) for key in keys]
            self._used[[place for place in places if place is not None]] = True
            return [None if place is None else self._rows[place].tobytes() for place in places]

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep rows; a key that is known keeps its row."""
        with self._lock:
            for key, row in rows.items():
                if key not in self._places:
                    place = self._free_place(key)
                    self._rows[place] = np.frombuffer(row, np.uint8)
                    self._places[key] = place

    def flush(self) -> None:
        """Do nothing: no other process finds these rows."""

    def close(self) -> None:
        """Do nothing: the rows end with the last reference to them."""

    def _free_place(self, key: bytes) -> int:
        """Return where the next row goes, for `key`; the row that lay there is forgotten."""
        if len(self._keys) < self._capacity:
            self._keys.append(key)
            return len(self._keys) - 1
        while self._used[self._hand]:
            self._used[self._hand] = False
            self._hand = (self._hand + 1) % self._capacity
        place = self._hand
        del self._places[self._keys[place]]
        self._keys[place] = key
        self._hand = (place + 1) % self._capacity
        return place

"""KServe v2, which Triton and other model servers speak: pairs go out as tensors, not as text.

Tensors travel as JSON numbers or, by the binary extension, as little-endian bytes behind the JSON.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError, RemoteError
from ...scoring.onnx.session import score_output, single_column
from .json_body import Answer, Ask, Json, decode, encode, expect_object

_HEAD = "inference-header-content-length"
_FLOATS: Mapping[str, str] = MappingProxyType({"FP64": "<f8", "FP32": "<f4", "FP16": "<f2"})


@dataclass(frozen=True, slots=True)
class KServe:
    """The dialect of one's own graph behind a model server.

    `binary` asks by the binary extension; answers are read in either form. `column` is the output
    column that counts, where the graph gives more than two. Under a deadline the time left goes
    along, so that a server with that extension does not compute what nobody waits for any more.
    """

    column: int | None = None
    binary: bool = True

    def ask(self, ask: Ask) -> tuple[bytes, Mapping[str, str]]:
        """Lay out the tensors of a call, int64 arrays [pairs, length]."""
        arrays = {name: array.astype("<i8") for name, array in ask.tensors.items()}
        body: dict[str, Json] = {
            "inputs": [self._input(name, array) for name, array in arrays.items()],
            "parameters": {"binary_data_output": self.binary, **_timeout(ask.left_s)},
            **ask.extra,
        }
        head = encode(body)
        if not self.binary:
            return head, {}
        headers = {"content-type": "application/octet-stream", _HEAD: str(len(head))}
        return b"".join([head, *(array.tobytes() for array in arrays.values())]), headers

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Read a score for each pair, in the order they were sent."""
        length = _number(headers[_HEAD], _HEAD) if _HEAD in headers else len(body)
        answer = expect_object(decode(body[:length], headers))
        given = answer.get("outputs")
        if not isinstance(given, list) or not given:
            message = f"the answer's outputs are {type(given).__name__}; expected a list of tensors"
            raise RemoteError(message)
        tensors = dict(_tensors([expect_object(one) for one in given], body[length:]))
        columns = tensors[score_output(list(tensors))]
        try:
            scores = single_column(columns, self.column, "behind this destination")
        except ModelError as error:
            raise RemoteError(str(error)) from error
        model = answer.get("model_name")
        return Answer(
            list(enumerate(scores.tolist())), model=model if isinstance(model, str) else None
        )

    def _input(self, name: str, array: NDArray[np.int64]) -> Json:
        described: dict[str, Json] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": "INT64",
        }
        if self.binary:
            return {**described, "parameters": {"binary_data_size": array.nbytes}}
        return {**described, "data": array.ravel().tolist()}


def _timeout(left_s: float | None) -> dict[str, Json]:
    """Say how long an answer may take, in whole microseconds: Triton's schedule policy extension.

    There 0 would mean no limit.
    """
    return {} if left_s is None else {"timeout": max(1, int(left_s * 1e6))}


def _tensors(
    outputs: Sequence[Mapping[str, object]], blob: bytes
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Give every output by its name, float32 [pairs, columns]; binary ones lie in `blob`, in order.

    Raises `RemoteError` for sizes that do not fit together.
    """
    start = 0
    for output in outputs:
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            values = _listed(output.get("data"))
        else:
            stop = start + _number(size, "binary_data_size")
            values = _packed(blob[start:stop], output.get("datatype"))
            start = stop
        yield str(output.get("name")), _shaped(values, output.get("shape"))


def _listed(data: object) -> NDArray[np.float32]:
    flat = np.array(data, dtype=object).ravel().tolist()
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in flat):
        message = "the answer's tensor holds something that is no number"
        raise RemoteError(message)
    return np.array(flat, dtype=np.float32)


def _packed(blob: bytes, datatype: object) -> NDArray[np.float32]:
    kind = _FLOATS.get(str(datatype))
    if kind is None or len(blob) % np.dtype(kind).itemsize:
        message = (
            f"the answer has a tensor of {str(datatype)[:20]!r} in {len(blob)} bytes; expected "
            f"{', '.join(_FLOATS)}"
        )
        raise RemoteError(message)
    return np.frombuffer(blob, dtype=kind).astype(np.float32)


def _shaped(values: NDArray[np.float32], shape: object) -> NDArray[np.float32]:
    sizes = [_number(one, "shape") for one in shape] if isinstance(shape, list) else []
    if not sizes or math.prod(sizes) != values.size:
        message = f"the answer's tensor of shape {str(shape)[:40]} holds {values.size} numbers"
        raise RemoteError(message)
    return values.reshape(sizes[0], -1) if values.size else values.reshape(0, 1)


def _number(value: object, what: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal():
        message = f"the answer's {what} is {text[:20]!r}; expected a whole number"
        raise RemoteError(message)
    return int(text)

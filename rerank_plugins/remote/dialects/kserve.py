"""KServe v2, which Triton and other model servers speak: pairs travel as tensors, not as text.

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
from .json_body import ApiRequest, ApiResponse, Json, dump_json, expect_object, parse_json

_JSON_LENGTH = "inference-header-content-length"
_FLOATS: Mapping[str, str] = MappingProxyType({"FP64": "<f8", "FP32": "<f4", "FP16": "<f2"})


@dataclass(frozen=True, slots=True)
class KServeDialect:
    """The dialect of a model server that runs the operator's own graph.

    column: the output column that holds the score, for graphs with more than two
    binary: send tensors as bytes; responses are read in either form
    """

    column: int | None = None
    binary: bool = True

    def encode(self, request: ApiRequest) -> tuple[bytes, Mapping[str, str]]:
        """Return the body of a call: the tensors, int64 [pairs, length], and the time left."""
        arrays = {name: array.astype("<i8") for name, array in request.tensors.items()}
        parameters: dict[str, Json] = {"binary_data_output": self.binary}
        if request.left_s is not None:
            # Triton's schedule policy extension: whole microseconds, and 0 would mean no limit.
            parameters["timeout"] = max(1, int(request.left_s * 1e6))
        body: dict[str, Json] = {
            "inputs": [self._input(name, array) for name, array in arrays.items()],
            "parameters": parameters,
            **request.extra,
        }
        head = dump_json(body)
        if not self.binary:
            return head, {}
        headers = {"content-type": "application/octet-stream", _JSON_LENGTH: str(len(head))}
        return b"".join([head, *(array.tobytes() for array in arrays.values())]), headers

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ApiResponse:
        """Return a score for each pair, in the order they were sent."""
        length = len(body)
        if _JSON_LENGTH in headers:
            length = _whole_number(headers[_JSON_LENGTH], _JSON_LENGTH)
        answer = expect_object(parse_json(body[:length], headers))
        outputs = answer.get("outputs")
        if not isinstance(outputs, list) or not outputs:
            message = (
                f"the answer's outputs are {type(outputs).__name__}; expected a list of tensors"
            )
            raise RemoteError(message)
        tensors = dict(_tensors([expect_object(output) for output in outputs], body[length:]))
        columns = tensors[score_output(list(tensors))]
        try:
            scores = single_column(columns, self.column, "behind this destination")
        except ModelError as error:
            raise RemoteError(str(error)) from error
        model = answer.get("model_name")
        return ApiResponse(
            list(enumerate(scores.tolist())), model=model if isinstance(model, str) else None
        )

    def _input(self, name: str, array: NDArray[np.int64]) -> Json:
        tensor: dict[str, Json] = {"name": name, "shape": list(array.shape), "datatype": "INT64"}
        if self.binary:
            return {**tensor, "parameters": {"binary_data_size": array.nbytes}}
        return {**tensor, "data": array.ravel().tolist()}


def _tensors(
    outputs: Sequence[Mapping[str, object]], blob: bytes
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield every output by its name, float32 [pairs, columns]; binary outputs lie in `blob`.

    Raises `RemoteError` for sizes that do not fit together.
    """
    start = 0
    for output in outputs:
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            values = _from_json(output.get("data"))
        else:
            stop = start + _whole_number(size, "binary_data_size")
            values = _from_bytes(blob[start:stop], output.get("datatype"))
            start = stop
        yield str(output.get("name")), _shaped(values, output.get("shape"))


def _from_json(data: object) -> NDArray[np.float32]:
    flat = np.array(data, dtype=object).ravel().tolist()
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in flat):
        message = "the answer's tensor holds something that is no number"
        raise RemoteError(message)
    return np.array(flat, dtype=np.float32)


def _from_bytes(blob: bytes, datatype: object) -> NDArray[np.float32]:
    kind = _FLOATS.get(str(datatype))
    if kind is None or len(blob) % np.dtype(kind).itemsize:
        message = (
            f"the answer has a tensor of another type in {len(blob)} bytes; expected "
            f"{', '.join(_FLOATS)}"
        )
        raise RemoteError(message)
    return np.frombuffer(blob, dtype=kind).astype(np.float32)


def _shaped(values: NDArray[np.float32], shape: object) -> NDArray[np.float32]:
    sizes = [_whole_number(size, "shape") for size in shape] if isinstance(shape, list) else []
    if not sizes or math.prod(sizes) != values.size:
        shown = "x".join(map(str, sizes))[:40]
        message = f"the answer's tensor of shape {shown or 'unknown'} holds {values.size} numbers"
        raise RemoteError(message)
    return values.reshape(sizes[0], -1) if values.size else values.reshape(0, 1)


def _whole_number(value: object, what: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal():
        message = f"the answer's {what} is no whole number"
        raise RemoteError(message)
    return int(text)

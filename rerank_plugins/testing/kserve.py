"""KServe v2 from the model server's side: tensors in JSON, or as bytes behind it."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..scoring.runtime.ort import onnxruntime
from .messages import Content, ParsedRequest, RefusedError

Infer: TypeAlias = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
"""Maps inputs by name, int64 [pairs, length], to scores, float32 [pairs, columns]."""

_JSON_LENGTH = "inference-header-content-length"


def parse(path: str, headers: Mapping[str, str], body: bytes) -> dict[str, object]:
    """Return the tensors of a request. Raises `RefusedError`, and `ValueError` if it is no JSON."""
    length = int(headers.get(_JSON_LENGTH, len(body)))
    content = json.loads(body[:length])
    tensors: dict[str, NDArray[np.int64]] = {}
    start = length
    for tensor in content["inputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if tensor["datatype"] != "INT64":
            raise RefusedError(400, f"inference input '{tensor['name']}' data-type is unexpected")
        if size is None:
            values = np.array(tensor["data"], dtype=np.int64).ravel()
        else:
            values = np.frombuffer(body[start : start + size], dtype="<i8")
            start += size
        if values.size != math.prod(tensor["shape"]):
            raise RefusedError(400, f"unexpected byte size for input '{tensor['name']}'")
        tensors[tensor["name"]] = values.reshape(tensor["shape"])
    if start != len(body):
        raise RefusedError(400, "unexpected additional input data")
    parameters = content.get("parameters", {})
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise RefusedError(400, "attempt to access JSON non-unsigned-integer 'timeout'")
    return {
        "tensors": tensors,
        "binary": parameters.get("binary_data_output", False),
        "timeout": timeout,
        "model": path.split("/")[3],
        "id": content.get("id"),
    }


def read(body: Mapping[str, object]) -> ParsedRequest:
    """Read token ids as words; the query ends at the first place of the row's last id, [SEP]."""
    tensors = body["tensors"]
    if not isinstance(tensors, dict) or "input_ids" not in tensors:
        raise RefusedError(400, "expected input 'input_ids'")
    ids = tensors["input_ids"]
    mask = tensors.get("attention_mask", np.ones_like(ids))
    query, texts = "", []
    for row, used in zip(ids, mask, strict=True):
        real = row[used == 1].tolist()
        cut = real.index(real[-1])
        query, passage = (" ".join(map(str, part)) for part in (real[1:cut], real[cut + 1 : -1]))
        texts.append(passage)
    return ParsedRequest(query, texts, str(body["model"]), None, body)


def answer(content: Content) -> object:
    """Return the scores as one output in the order of the pairs; a missing score is NaN."""
    scores = {row.index: row.score for row in content.rows}
    pairs = range(max((int(str(index)) for index in scores), default=-1) + 1)
    rows = [scores.get(pair, math.nan) for pair in pairs]
    flat = [value for row in rows for value in (row if isinstance(row, list) else [row])]
    return {
        "model_name": content.model,
        "model_version": "1",
        **({"id": content.request.body["id"]} if content.request.body["id"] else {}),
        "outputs": [
            {
                "name": "logits",
                "datatype": "FP32",
                "shape": [len(rows), len(flat) // max(1, len(rows))],
                "data": flat,
            }
        ],
        "binary": content.request.body["binary"],
    }


def dump(value: object) -> tuple[bytes, Mapping[str, str]]:
    """Return the body and headers; scores as bytes if that was asked for and they are numbers."""
    content = dict(value) if isinstance(value, dict) else {}
    (output,) = content["outputs"]
    binary = content.pop("binary") and all(isinstance(value, float) for value in output["data"])
    if not binary:
        return json.dumps(content).encode(), {}
    blob = np.array(output.pop("data"), dtype="<f4").tobytes()
    output["parameters"] = {"binary_data_size": len(blob)}
    head = json.dumps(content).encode()
    headers = {"content-type": "application/octet-stream", _JSON_LENGTH: str(len(head))}
    return head + blob, headers


def error(status: int, message: str) -> object:  # noqa: ARG001 - the body holds no status
    """Return the body of an error."""
    return {"error": message}


def runner(graph: Path) -> Infer:
    """Return a function that runs an ONNX graph, as a model server would."""
    library = onnxruntime()
    options = library.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = library.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    expected = {tensor.name for tensor in session.get_inputs()}

    def infer(tensors: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        if set(tensors) != expected:
            raise RefusedError(
                400, f"expected inputs {sorted(expected)} but got {sorted(tensors)} for model"
            )
        (first, *_) = session.run(None, dict(tensors))
        columns: NDArray[np.float32] = np.asarray(first, dtype=np.float32)
        return columns.reshape(len(columns), -1)

    return infer

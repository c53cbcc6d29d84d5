"""KServe v2 as a model server speaks it: tensors in, tensors out, in JSON or behind it as bytes."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .messages import Asked, Layout, RefusedError

Infer: TypeAlias = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
"""What stands for the graph: int64 [pairs, length] by name to float32 [pairs, columns]."""

HEAD = "inference-header-content-length"


def decode(path: str, headers: Mapping[str, str], body: bytes) -> dict[str, object]:
    """Read a request's tensors. Raises `RefusedError`, and `ValueError` for what is no JSON."""
    length = int(headers.get(HEAD, len(body)))
    asked = json.loads(body[:length])
    tensors: dict[str, NDArray[np.int64]] = {}
    start = length
    for one in asked["inputs"]:
        size = one.get("parameters", {}).get("binary_data_size")
        if one["datatype"] != "INT64":
            raise RefusedError(400, f"inference input '{one['name']}' data-type is unexpected")
        if size is None:
            values = np.array(one["data"], dtype=np.int64).ravel()
        else:
            values = np.frombuffer(body[start : start + size], dtype="<i8")
            start += size
        if values.size != math.prod(one["shape"]):
            raise RefusedError(400, f"unexpected byte size for input '{one['name']}'")
        tensors[one["name"]] = values.reshape(one["shape"])
    if start != len(body):
        raise RefusedError(400, "unexpected additional input data")
    parameters = asked.get("parameters", {})
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise RefusedError(400, "attempt to access JSON non-unsigned-integer 'timeout'")
    return {
        "tensors": tensors,
        "binary": parameters.get("binary_data_output", False),
        "timeout": timeout,
        "model": path.split("/")[3],
        "id": asked.get("id"),
    }


def read(body: Mapping[str, object]) -> Asked:
    """Take ids for words: what lies before a row's last id comes up first is the query."""
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
    return Asked(query, texts, str(body["model"]), None, body)


def answer(layout: Layout) -> object:
    """Give the scores as one output, each in its pair's place; holes are no numbers."""
    scores = {row.index: row.score for row in layout.rows}
    places = range(max((int(str(place)) for place in scores), default=-1) + 1)
    columns = [scores.get(place, math.nan) for place in places]
    flat = [one for each in columns for one in (each if isinstance(each, list) else [each])]
    return {
        "model_name": layout.model,
        "model_version": "1",
        **({"id": layout.asked.body["id"]} if layout.asked.body["id"] else {}),
        "outputs": [
            {
                "name": "logits",
                "datatype": "FP32",
                "shape": [len(columns), len(flat) // max(1, len(columns))],
                "data": flat,
            }
        ],
        "binary": layout.asked.body["binary"],
    }


def pack(value: object) -> tuple[bytes, Mapping[str, str]]:
    """Write an answer, its numbers as bytes where that was asked for and they are numbers."""
    answered = dict(value) if isinstance(value, dict) else {}
    (output,) = answered["outputs"]
    binary = answered.pop("binary") and all(isinstance(one, float) for one in output["data"])
    if not binary:
        return json.dumps(answered).encode(), {}
    blob = np.array(output.pop("data"), dtype="<f4").tobytes()
    output["parameters"] = {"binary_data_size": len(blob)}
    head = json.dumps(answered).encode()
    headers = {"content-type": "application/octet-stream", HEAD: str(len(head))}
    return head + blob, headers


def error(status: int, message: str) -> object:  # noqa: ARG001 - the body holds no status
    """Lay out an error."""
    return {"error": message}


def runner(graph: Path) -> Infer:
    """Run an ONNX graph, as a model server would."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    expected = {one.name for one in session.get_inputs()}

    def infer(tensors: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        if set(tensors) != expected:
            raise RefusedError(
                400, f"expected inputs {sorted(expected)} but got {sorted(tensors)} for model"
            )
        (first, *_) = session.run(None, dict(tensors))
        columns: NDArray[np.float32] = np.asarray(first, dtype=np.float32)
        return columns.reshape(len(columns), -1)

    return infer

"""The part of Triton's model_config.proto that our repositories use, to parse config.pbtxt by.

Names and types are those of the official schema; a name it does not know fails to parse.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _FIELD.TYPE_STRING,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
    "bool": _FIELD.TYPE_BOOL,
}
_MESSAGES = {
    "ModelTensorReshape": {"shape": "int64*"},
    "ModelTensor": {
        "name": "string",
        "data_type": "DataType",
        "dims": "int64*",
        "reshape": "ModelTensorReshape",
    },
    "ModelQueuePolicy": {
        "default_timeout_microseconds": "uint64",
        "allow_timeout_override": "bool",
        "max_queue_size": "uint32",
    },
    "ModelDynamicBatching": {
        "max_queue_delay_microseconds": "uint64",
        "default_queue_policy": "ModelQueuePolicy",
    },
    "WarmupInput": {"data_type": "DataType", "dims": "int64*", "zero_data": "bool"},
    "InputsEntry": {"key": "string", "value": "WarmupInput"},
    "ModelWarmup": {"name": "string", "batch_size": "uint32", "inputs": "InputsEntry*"},
    "ModelConfig": {
        "name": "string",
        "backend": "string",
        "max_batch_size": "int32",
        "input": "ModelTensor*",
        "output": "ModelTensor*",
        "dynamic_batching": "ModelDynamicBatching",
        "model_warmup": "ModelWarmup*",
    },
}
# Triton's own numbers.
_TYPES = {"TYPE_INVALID": 0, "TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11, "TYPE_FP64": 12}


def parse(text: str) -> Message:
    """Read a config.pbtxt; raises `text_format.ParseError` for what Triton would not take."""
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="t", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for name, number in _TYPES.items():
        kinds.value.add(name=name, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, spelled) in enumerate(fields.items(), start=1):
            kind = spelled.rstrip("*")
            made = message.field.add(name=field, number=number)
            made.label = _FIELD.LABEL_REPEATED if spelled != kind else _FIELD.LABEL_OPTIONAL
            made.type = _SCALARS.get(kind, _FIELD.TYPE_MESSAGE)
            if kind not in _SCALARS:
                made.type_name = f".t.{kind}"
                made.type = _FIELD.TYPE_ENUM if kind == "DataType" else _FIELD.TYPE_MESSAGE
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    model = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelConfig"))
    return text_format.Parse(text, model())

"""From a checkpoint to an ONNX folder, checked against the original."""

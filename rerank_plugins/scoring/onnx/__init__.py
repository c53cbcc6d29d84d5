"""Cross-encoders in ONNX Runtime."""

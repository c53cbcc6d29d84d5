"""Tests of `scoring.onnx`."""

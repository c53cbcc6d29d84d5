"""Tests of rerank_plugins.telemetry."""

"""Tests of rerank_plugins.quality.guard."""

"""Tests of rerank_plugins.guard."""

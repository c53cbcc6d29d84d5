"""Rerank APIs as scorers: one table of providers, one client, and rules that fail closed."""

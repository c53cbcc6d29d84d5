"""Drift: how requests differ from a snapshot taken while reranking worked well."""

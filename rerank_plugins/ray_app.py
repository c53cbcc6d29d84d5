"""The documented door to Ray: `serve run rerank_plugins.ray_app:app`, and `rerank_dataset`."""

import os

# Read when a cluster is started, which `serve run` does after this import.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from .serving.ray import RayOptions, Replica, app, open_reranker, rerank_dataset

__all__ = ["RayOptions", "Replica", "app", "open_reranker", "rerank_dataset"]

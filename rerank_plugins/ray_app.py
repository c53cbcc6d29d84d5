"""The documented door to Ray: `serve run rerank_plugins.ray_app:app`, and `rerank_dataset`."""

from .serving.ray import RayOptions, Replica, app, open_reranker, rerank_dataset

__all__ = ["RayOptions", "Replica", "app", "open_reranker", "rerank_dataset"]

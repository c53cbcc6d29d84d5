"""Rerank retrieved documents with rerank-plugins."""

try:
    import haystack as _  # noqa: F401 - only to name the extra where it is missing
except ImportError as error:
    message = (
        'haystack-ai is not installed; install it with: pip install "rerank-plugins[haystack]"'
    )
    raise ImportError(message) from error

from .ranker import RerankPluginsRanker

__all__ = ["RerankPluginsRanker"]

"""Rerank retrieved nodes with rerank-plugins."""

try:
    import llama_index.core as _  # noqa: F401 - only to name the extra where it is missing
except ImportError as error:
    message = (
        "llama-index-core is not installed; install it with: pip install "
        '"rerank-plugins[llama-index]"'
    )
    raise ImportError(message) from error

from .base import RerankEndEvent, RerankPluginsRerank

__all__ = ["RerankEndEvent", "RerankPluginsRerank"]

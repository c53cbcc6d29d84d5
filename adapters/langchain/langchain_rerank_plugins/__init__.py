"""Rerank retrieved documents with rerank-plugins."""

try:
    import langchain_core as _  # noqa: F401 - only to name the extra where it is missing
except ImportError as error:
    message = (
        'langchain-core is not installed; install it with: pip install "rerank-plugins[langchain]"'
    )
    raise ImportError(message) from error

from .compressor import RerankPluginsCompressor
from .cross_encoder import RerankPluginsCrossEncoder

__all__ = ["RerankPluginsCompressor", "RerankPluginsCrossEncoder"]

"""When reranking hurts: drift of requests, and the guard that acts on it."""

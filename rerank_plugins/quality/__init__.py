"""When reranking hurts: drift of the requests, and the guard that acts on it."""

"""The HTTP server: one engine behind the routes that rerank clients already speak."""

"""Ways to serve the engine: HTTP, Ray, and the seam that framework adapters use."""

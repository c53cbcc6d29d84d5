"""Where a model's files come from, and which models are known."""

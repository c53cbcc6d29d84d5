"""The embedded model and its card."""

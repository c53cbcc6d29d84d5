"""Encoders of single texts, and the memory of their vectors."""

"""Placeholder until the measures are in."""

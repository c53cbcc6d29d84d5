"""Rewrites of a model's graph that change no score, each verified at load."""

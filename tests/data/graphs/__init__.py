"""Tests of `data.graphs`."""

"""Tests of `quality`."""

"""Tests of `adaptive.exits`."""

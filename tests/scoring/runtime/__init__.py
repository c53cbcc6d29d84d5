"""Tests of `scoring.runtime`."""

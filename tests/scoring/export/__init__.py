"""Tests of `scoring.export`."""

"""Tests of `scoring.models`."""

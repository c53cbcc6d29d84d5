"""Tests of `scoring.exits`."""

"""Tests of `scoring.text`."""

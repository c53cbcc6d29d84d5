"""Tests of `adaptive`."""

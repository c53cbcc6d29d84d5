"""Tests of encoders and of the memory of vectors."""

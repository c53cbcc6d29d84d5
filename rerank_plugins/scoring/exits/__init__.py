"""A model cut at its exits, so that a candidate can stop early."""

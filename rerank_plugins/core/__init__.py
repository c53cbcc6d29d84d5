"""One request, in order: start at `pipeline.py`."""

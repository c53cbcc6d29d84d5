"""The guard: watches requests for drift, and changes how they are served where it hurts."""

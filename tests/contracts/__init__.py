"""One suite per seam, run over all that sits behind it."""

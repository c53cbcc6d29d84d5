"""How the embedded model is made, end to end; see README.md."""

"""Remote scorers, over real sockets."""

"""Early exit for any cross-encoder, fitted on its own scores and certified without labels."""

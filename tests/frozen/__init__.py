"""What requests through every mode give, recorded to be compared across a refactoring."""

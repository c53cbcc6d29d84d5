"""What each family of remote APIs wants to read, and what it answers."""

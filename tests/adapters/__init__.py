"""What each framework demands of its adapter."""

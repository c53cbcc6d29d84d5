"""Settings: the only room that knows every concrete scorer."""

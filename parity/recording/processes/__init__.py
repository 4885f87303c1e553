"""Both sides of a pair, each in a process of its own environment."""

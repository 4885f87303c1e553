"""NumPy functions."""

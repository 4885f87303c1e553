"""Data sets, transforms and loading: NumPy and Pillow only."""

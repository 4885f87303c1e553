"""Data sets, transforms and loading, with NumPy and Pillow only."""

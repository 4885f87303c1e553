"""Proof that two backends compute the same: record traces apart, compare them with NumPy."""

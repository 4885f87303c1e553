"""Which array of one model is which array of another: names, layouts and weights (NumPy only)."""

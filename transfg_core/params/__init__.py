"""Parameters as NumPy arrays: initial values, strict merge, optimiser groups, resized positions."""

"""Operators that PyTorch lacks or has only in a slower or less exact form. No twin."""

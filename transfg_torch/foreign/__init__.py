"""Files that only PyTorch can read. No twin."""

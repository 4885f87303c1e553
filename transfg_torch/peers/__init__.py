"""Programs of others that `transfg bench` compares with. No twin: they belong to PyTorch."""

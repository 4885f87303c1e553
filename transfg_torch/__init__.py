"""TransFG in PyTorch: the twin of `transfg_jt`, file for file."""

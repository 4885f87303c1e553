"""TransFG in Jittor: the twin of `transfg_torch`, file for file."""

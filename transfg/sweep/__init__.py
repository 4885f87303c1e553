"""`transfg sweep`: the runs of a grid of settings."""

"""Recording: run one side of a pair in its own environment and write its traces (needs NumPy)."""

"""The computations of the suite: small experiments, the published traces, variants of each."""

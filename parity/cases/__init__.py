"""What the suite computes: small experiments, the published traces, and variants of each."""

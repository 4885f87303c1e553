"""The audit of Jittor's own models (docs/results/jittor_models.md)."""

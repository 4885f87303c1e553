"""Scripts about the repository. Run them from its root."""

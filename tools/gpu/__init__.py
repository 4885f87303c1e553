"""Scripts for a machine with a GPU and without a package index."""

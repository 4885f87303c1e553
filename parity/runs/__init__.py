"""Comparison of whole runs: final accuracies and loss curves."""

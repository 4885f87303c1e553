"""Comparing whole runs: final accuracies and loss curves."""

"""Traces and the verdict on them. Needs NumPy and PyYAML, no framework."""

"""Traces and the verdicts on them. Needs NumPy and PyYAML, but no framework."""

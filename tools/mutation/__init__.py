"""Planted faults: does the parity suite catch them? Run as `python -m tools.mutation`."""

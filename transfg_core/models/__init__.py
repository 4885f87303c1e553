"""Descriptions of the architectures without a framework: parameters, initial values and taps.

Each architecture has a file. `layout.py` looks one up by name and holds the common functions.
"""

"""What an architecture is, without a framework: its parameters, initial values and taps.

One file per architecture; `layout.py` holds what they share and looks one up by its name.
"""

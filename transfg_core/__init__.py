"""The framework-neutral core of TransFG: code that both twins share, in NumPy and plain Python.

`transfg_core.backend.load_backend` loads a twin by name. Nothing in this package imports torch or
jittor; `tests/test_layering.py` checks this in a subprocess.
"""

__version__ = "0.2.0.dev0"

"""The framework-neutral core of TransFG: what both twins share, in NumPy and plain Python.

Nothing in this package imports torch or jittor; `transfg_core.backend.load_backend` loads a twin
by name. `tests/test_layering.py` proves it in a subprocess.
"""

__version__ = "0.1.0"

"""Load and malformed files against a running `transfg demo`; `__main__.py` says how."""

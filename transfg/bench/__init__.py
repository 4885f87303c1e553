"""Speed and memory of the backends, measured by turns (docs/performance.md)."""

"""Speed and memory of the backends, measured in turn (docs/performance.md)."""

"""One page about runs: tables, curves and templates."""

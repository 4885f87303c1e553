"""The report about runs: tables, curves and templates."""

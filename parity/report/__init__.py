"""Reports of a parity run: console table, JSON, JUnit and one HTML page."""

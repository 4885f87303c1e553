"""Reports of a parity run: a table in the console, JSON, JUnit and one HTML page."""

"""The folder of a run (writing and reading it), and progress on the screen."""

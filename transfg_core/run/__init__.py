"""The folder of a run: writing it, reading it back, and progress on the screen."""

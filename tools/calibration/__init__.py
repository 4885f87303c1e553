"""Calibration of `parity`: false alarms and misses on pairs whose truth is known."""

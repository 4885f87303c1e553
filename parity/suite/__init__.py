"""The suite: record both backends in their own processes, judge, report."""

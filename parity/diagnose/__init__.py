"""Where two implementations part, and why."""

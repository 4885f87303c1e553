"""Where two implementations begin to differ, and why."""

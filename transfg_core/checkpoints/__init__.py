"""This project's checkpoint format, and readers of pretrained weights from other sources."""

"""The checkpoint format of this project, and pretrained weights from other sources."""

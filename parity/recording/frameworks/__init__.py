"""What the recorder knows of each framework: one folder for each, its adapter first."""

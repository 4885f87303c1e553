"""What `transfg bench` measures besides the models: the published method, and single workloads."""

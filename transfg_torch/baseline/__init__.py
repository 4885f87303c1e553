"""What `transfg bench` measures beside the models: the published method, and single workloads."""

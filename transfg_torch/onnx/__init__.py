"""Export to ONNX, which needs no twin."""

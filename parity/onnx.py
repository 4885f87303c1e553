"""Record an ONNX file by ONNX Runtime.

    from parity.onnx import record

    record("b.npz", "model.onnx", {"x": images})

The output of every node is a tap. The model is a path, bytes, or an `onnx.ModelProto`.
"""

from functools import partial

from parity.recording.door import record_model

record = partial(record_model, "onnx")

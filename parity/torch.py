"""Record a PyTorch model of a running script.

    from parity.torch import record

    record("a.npz", model, {"x": images.numpy()})
    record("a-float64.npz", model, {"x": images.numpy()}, precision="float64")

Every leaf module's output, all gradients and the choices at kinks are taps of the trace. For two
models in two environments, a pair file does more with less (docs/parity.md).
"""

from functools import partial

from parity.recording.door import record_model

record = partial(record_model, "torch")

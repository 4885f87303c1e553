"""Record a Jittor model of a running script.

    from parity.jittor import record

    record("b.npz", model, {"x": images})  # images: a NumPy array

Every leaf module's output, all gradients and the choices at kinks are taps of the trace. float64
needs a process of its own: describe the model in a pair file (docs/parity.md).
"""

from functools import partial

from parity.recording.door import record_model

record = partial(record_model, "jittor")

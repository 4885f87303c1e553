"""Record a flax.linen model of a running script.

    from parity.jax import record

    record("b.npz", (model, variables), {"x": images})

`variables` are what `model.init` gave. The inputs are as the model takes them.
"""

from functools import partial

from parity.recording.door import record_model

record = partial(record_model, "jax")

"""Which known mistakes belong to a tap of a recorded pass: the table, and the rule.

Tap names are whole: `isolated forward/layer1.0.bn1`. Stages are those of docs/parity.md.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from parity.diagnose.causes.attention import attention, fused_attention
from parity.diagnose.causes.convolutions import convolution
from parity.diagnose.causes.dense import linear
from parity.diagnose.causes.elementwise import (
    activation,
    activation_gradient,
    channel_shuffle,
    identity,
    over_axis,
)
from parity.diagnose.causes.facts import Operation
from parity.diagnose.causes.hypothesis import Absent, Hypothesis, Recompute, param_of, tap_of
from parity.diagnose.causes.normalising import (
    batch_norm,
    group_norm,
    layer_norm,
    running_statistics,
)
from parity.diagnose.causes.pair import Context, Pair
from parity.diagnose.causes.pooling import adaptive_pool, pool
from parity.diagnose.causes.resizing import upsample

ELEMENTWISE = (
    "relu",
    "relu6",
    "leaky relu",
    "hard swish",
    "hard sigmoid",
    "clamp",
    "gelu",
    "silu",
    "sigmoid",
)
# canonical operation -> its known mistakes
OPERATIONS: dict[str, Recompute] = {
    "convolution": convolution,
    "linear": linear,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group norm": group_norm,
    "softmax": over_axis,
    "log softmax": over_axis,
    "max pool": pool,
    "mean pool": pool,
    "adaptive mean pool": adaptive_pool,
    "adaptive max pool": adaptive_pool,
    "upsample": upsample,
    "attention": attention,
    "fused attention": fused_attention,
    "channel shuffle": channel_shuffle,
    "dropout": identity,
    "identity": identity,
    **dict.fromkeys(ELEMENTWISE, activation),
}


def rule_for(tap: str, context: Context) -> Recompute | None:
    """The known mistakes of the operation that makes a tap; None if there are none."""
    stage, _, name = tap.partition("/")
    kind = stage.rpartition(" ")[2]
    if kind == "statistics":
        return running_statistics
    if kind == "update":
        return step if name.startswith("step/") else None
    if stage == "isolated backward":
        forward = context.made_by.get(f"isolated forward/{name}")
        if isinstance(forward, Operation) and forward.operation in ELEMENTWISE:
            return partial(gradient, f"isolated forward/{name}", f"backward/d/{name}")
        return None
    made = context.made_by.get(tap)
    return OPERATIONS.get(made.operation) if made else None


def gradient(
    forward: str, cotangent: str, tap: str, context: Context, pair: Pair
) -> Iterator[Hypothesis]:
    """The gradient of an elementwise function, fed with the baseline's cotangent."""
    return activation_gradient(forward, cotangent, context, pair)


def step(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The first step of SGD: -lr · (gradient + weight decay · weight)."""
    name = tap.partition("/step/")[2]
    key = next(
        (k for k in (f"training gradients/{name}", f"gradients/{name}") if k in context.taps), ""
    )
    grad, weight = tap_of(context, key), param_of(context, name)
    if context.lr is None or context.momentum is None:  # only SGD has a momentum
        raise Absent("lr")
    lr, decay = context.lr, context.weight_decay or 0.0
    plain = -lr * (grad + decay * weight)
    yield Hypothesis("as defined", "the update as defined, from A's gradient, gives B", plain)
    if decay:
        yield Hypothesis("no decay", "weight decay is missing", -lr * grad)
        text = "weight decay comes twice"
        yield Hypothesis("decay", text, plain - lr * decay * weight)
        text = "weight decay is decoupled and not multiplied by lr"
        yield Hypothesis("decay", text, -lr * grad - decay * weight)
    yield Hypothesis("frozen", "the parameter is never updated", np.zeros_like(grad))
    text = "dampening 1 - momentum at the first update"
    yield Hypothesis("dampening", text, (1 - context.momentum) * plain)
    text = "Nesterov's form: 1 + momentum at the first update"
    yield Hypothesis("nesterov", text, (1 + context.momentum) * plain)

"""Explain why a tap of the suite differs, by the architectures' tables of taps.

    explain("block00.mlp.gelu", found, expected, Context(taps, params, taps_of(model)))   # all A's
    -> [Cause("tanh", "GELU in its tanh form", 3.1e-07)]

`parity.diagnose.causes` tries relations and accepts hypotheses. Here are the known mistakes of this
project's operations, recomputed from A's inputs (`operations.py`, `convolving.py`,
`standardising.py`, `feature_maps.py`, `attending.py`, `scales.py`, `objective.py`). The
architecture's table of taps names the operation of each tap, and its inputs. It needs NumPy and
SciPy, no framework.

Taps: activations by name, `d/<tap>` their gradients, `grad/<parameter>` before clipping,
`momentum/<parameter>` and `step/<parameter>` (new weight minus old) after the first update.
"""

from parity.diagnose.causes import explain as explain_by_rule
from parity.diagnose.causes.hypothesis import Recompute
from parity.diagnose.causes.pair import Array, Cause, Context
from parity.suite.causes.attending import attention_mix, residual, tokens
from parity.suite.causes.choosing import (
    all_tokens,
    features,
    part_index,
    part_tokens,
    similarity,
)
from parity.suite.causes.convolving import convolution, mean_over_positions
from parity.suite.causes.feature_maps import (
    batch_norm,
    max_pool,
    residual_relu,
    running_statistics,
)
from parity.suite.causes.objective import contrastive, cross_entropy, grad_norm, loss, update
from parity.suite.causes.operations import activation, activation_gradient, layer_norm, linear
from parity.suite.causes.scales import (
    column_means,
    fusion,
    gather_parts,
    memories,
    softmax_over,
)
from parity.suite.causes.standardising import (
    group_norm,
    padded_max_pool,
    standardised_convolution,
)
from parity.suite.causes.windows import mean_over_tokens, merging, window_attention

# operation of a tap (transfg_core/models) -> results of known mistakes in it
OPERATIONS: dict[str, Recompute] = {
    "layer_norm": layer_norm,
    "gelu": activation,
    "relu": activation,
    "linear": linear,
    "convolution": convolution,
    "mean over positions": mean_over_positions,
    "standardised convolution": standardised_convolution,
    "group norm": group_norm,
    "group norm and relu": group_norm,
    "padded max pool": padded_max_pool,
    "batch_norm": batch_norm,
    "max pool": max_pool,
    "residual relu": residual_relu,
    "attention": attention_mix,
    "window attention": window_attention,
    "merging": merging,
    "mean over tokens": mean_over_tokens,
    "tokens": tokens,
    "residual": residual,
    "choice": part_index,
    "gather": part_tokens,
    "class similarity": similarity,
    "class token": features,
    "all tokens": all_tokens,
    "parts": all_tokens,
    "feature fusion": fusion,
    "softmax over rows": softmax_over(2),
    "softmax over columns": softmax_over(3),
    "memories": memories,
    "column means": column_means,
    "gather parts": gather_parts,
}
# the same for taps that no architecture's table lists
OTHERS: dict[str, Recompute] = {
    "cross_entropy": cross_entropy,
    "contrastive": contrastive,
    "loss": loss,
    "grad_norm": grad_norm,
}
PREFIXES: dict[str, Recompute] = {
    "d": activation_gradient,
    "step": update,
    "momentum": update,
}


def explain(tap: str, found: Array, expected: Array, context: Context | None = None) -> list[Cause]:
    """The likely causes by the suite's tables; as `parity.diagnose.causes.explain`."""
    return explain_by_rule(tap, found, expected, context or Context(), rule_for)


def rule_for(tap: str, context: Context) -> Recompute | None:
    """The known mistakes of the operation that makes a tap; None if there are none."""
    prefix, slash, _ = tap.partition("/")
    if slash:
        statistic = prefix == "step" and ".running_" in tap
        return running_statistics if statistic else PREFIXES.get(prefix)
    if tap in context.made_by:
        return OPERATIONS.get(context.made_by[tap].operation)
    return OTHERS.get(tap)

"""From "this tap of B differs from A's" to a likely cause.

    explain("block00.mlp.gelu", found, expected, Context(taps=taps_of_A))
    -> [Cause("tanh", "GELU in its tanh form", 3.1e-07)]

Two layers of hypotheses: relations between the two arrays (`relations.py`), and known mistakes in
the operation that made the tap, recomputed from A's inputs (`operations.py`, `attending.py`,
`objective.py`). `RULES` says which taps an operation is for. All of it is for the first tap that
differs: after that B's inputs are no longer A's. Says nothing rather than something doubtful; the
rule is in `pair.py`. Needs NumPy and SciPy alone.

Taps: activations by name, `d/<tap>` their gradients, `grad/<parameter>` before clipping,
`momentum/<parameter>` and `step/<parameter>` (new weight minus old) after the first update.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np

from parity.causes.attending import (
    attention_mix,
    features,
    part_index,
    part_tokens,
    residual,
    tokens,
)
from parity.causes.objective import contrastive, cross_entropy, grad_norm, loss, update
from parity.causes.operations import (
    Absent,
    Hypothesis,
    activation,
    activation_gradient,
    layer_norm,
    linear,
    patch_embed,
)
from parity.causes.pair import Array, Cause, Context, Pair, as_pair, ranked
from parity.causes.relations import relations

Recompute = Callable[[str, Context, Pair], Iterator[Hypothesis]]
RULES: tuple[tuple[str, Recompute], ...] = (
    (r"(.*\.)?(norm[12]|part_norm|norm)", layer_norm),
    (r".*\.mlp\.gelu", activation),
    (r"d/.*\.mlp\.fc1", activation_gradient),
    (r".*\.attn\.(query|key|value|out)|.*\.mlp\.fc[12]|logits", linear),
    (r".*\.attn\.mix", attention_mix),
    (r"patch_embed", patch_embed),
    (r"tokens", tokens),
    (r".*\.mid|block\d+|part_layer", residual),
    (r"part_index", part_index),
    (r"part_tokens", part_tokens),
    (r"features", features),
    (r"cross_entropy", cross_entropy),
    (r"contrastive", contrastive),
    (r"loss", loss),
    (r"grad_norm", grad_norm),
    (r"(step|momentum)/.*", update),
)


def explain(tap: str, found: Array, expected: Array, context: Context | None = None) -> list[Cause]:
    """Likely causes of B (`found`) differing from A (`expected`) in a tap, best first; often none.

    Context is A's; without its inputs only relations are tried.
    """
    context = context or Context()
    causes = relations(found, expected, context, tap)
    pair = as_pair(np.asarray(found), np.asarray(expected), context, tap)
    if pair is None or any(one.code in ("not finite", "not zero") for one in causes):
        return causes
    for pattern, recompute in RULES:
        if "/" in tap and "/" not in pattern:
            continue
        if re.fullmatch(pattern, tap):
            causes += recomputed(recompute, pair, context)
    return ranked(causes, pair.noise)


def recomputed(recompute: Recompute, pair: Pair, context: Context) -> Iterator[Cause]:
    """The hypotheses of one operation that hold, as far as the context allows to compute them."""
    try:
        for one in recompute(pair.tap, context, pair):
            value = np.asarray(one.value, np.float64)
            yield from pair.cause(one.code, one.text, value, one.fitted)
    except Absent:
        return

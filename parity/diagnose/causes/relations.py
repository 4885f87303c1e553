"""How one array relates to another: is B twice A, A transposed, A without a bias?

    relations(found, expected)      # found: B, expected: A -> [Cause("scaled", "B = 2 · A ...")]

It knows nothing of models; a `Context` makes its sentences more exact. `causes/__init__.py` adds
the operations of the model. `rearranged.py` holds the relations that move numbers to other places.
It needs only NumPy.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from parity.diagnose.causes.pair import MANY, Array, Cause, Context, Pair, as_pair, ranked
from parity.diagnose.causes.rearranged import axes, order, shifted

# format -> bits of the mantissa that it stores; float32 stores 23
FORMATS = {"bfloat16": 7, "float16 or TF32": 10}
# operations (transfg_core/models) in which a factor √d of a head, or of dropout, can be wrong
WITH_HEADS = ("linear", "attention", "fused row", "scores")
WITH_DROPOUT = ("dropout", "attention")


def relations(
    found: Array, expected: Array, context: Context | None = None, tap: str = ""
) -> list[Cause]:
    """Relations between B (`found`) and A (`expected`) that hold, best first; often none."""
    context = context or Context()
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape == expected.shape:
        special = list(special_values(found, expected, tap))
        if special:
            return special
    pair = as_pair(found, expected, context, tap)
    if pair is None:
        return []
    tried = RELATIONS if pair.same_shape else OTHER_SHAPE
    return ranked([cause for relation in tried for cause in relation(pair, context)], pair.noise)


def special_values(found: Array, expected: Array, tap: str) -> Iterator[Cause]:
    """NaN or infinity in only one array, or zeros in only one; then no relation is tried."""
    bad_b, bad_a = ~np.isfinite(found), ~np.isfinite(expected)
    if (bad_b != bad_a).any():
        owner, bad = ("B", bad_b & ~bad_a) if (bad_b & ~bad_a).any() else ("A", bad_a & ~bad_b)
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        text = f"{int(bad.sum())} elements of {owner} alone are not finite, the first at {place}"
        yield Cause("not finite", text, 0.0)
    elif expected.any() and not found.any():
        why = {"grad": ": no gradient, frozen or detached", "step": ": never updated"}
        text = f"B is all zeros{why.get(tap.partition('/')[0], '')}"
        yield Cause("zero", text, 0.0)
    elif found.any() and not expected.any():
        yield Cause("not zero", "A is all zeros, B is not", 0.0)


def known_constants(tap: str, context: Context) -> Iterator[tuple[float, str]]:
    """Factors that have a meaning for this tap: (factor, meaning)."""
    b, c, m, p = context.batch, context.classes, context.momentum, context.dropout
    kind = tap.partition("/")[0] if "/" in tap else ""
    row = context.made_by.get(tap.removeprefix("d/"))
    operation = row.operation if row else ""
    losses = ("loss", "cross_entropy", "contrastive", "grad_norm")
    loss_like = (
        tap in losses
        or tap.startswith("stage_loss")
        or kind
        in (
            "grad",
            "d",
        )
    )
    update = kind in ("step", "momentum")
    yield 2.0, "done twice"
    yield 0.5, "half of it"
    if b and (loss_like or update):
        yield float(b), "the batch size: divided by it once less (a sum for a mean, B for B²)"
        yield 1.0 / b, "1 / batch size: divided by it once more (B² for B)"
        yield b / max(b - 1, 1), "B / (B - 1): divided by B (B - 1) pairs, not by B²"
        yield 2 * b / max(b - 1, 1), "2 B / (B - 1): divided by B (B - 1) / 2 pairs, not by B²"
    if context.accumulation and (loss_like or update):
        yield float(context.accumulation), "the number of micro-batches: summed, not averaged"
        yield 1.0 / context.accumulation, "1 / number of micro-batches: divided twice"
    if c and c > 1:
        yield c / (c - 1), "C / (C - 1) for C classes"
        yield (c - 1) / c, "(C - 1) / C for C classes"
    if context.width and context.heads and (kind or operation in WITH_HEADS):
        d = context.width / context.heads
        yield d**0.5, "√d of a head: the scale 1/√d is left out"
        yield d**-0.5, "1/√d of a head: scaled once more"
    if m and update:
        yield 1 - m, "1 - momentum: dampening"
        yield 1 / (1 - m), "1 / (1 - momentum): A has dampening"
        yield 1 + m, "1 + momentum: Nesterov's form at the first update"
    if context.lr and update:
        yield context.lr, "the learning rate: multiplied in once more"
        yield 1 / context.lr, "1 / learning rate: not multiplied in"
    factor = context.clip_factor()
    if factor and factor < 1 and (update or kind == "grad" or tap == "grad_norm"):
        yield 1 / factor, "1 / clip factor: not clipped, or stepped before clipping"
        yield factor, "the clip factor: clipped once more, or where A is not"
    if p and operation in WITH_DROPOUT:
        yield 1 / (1 - p), "1 / (1 - dropout): rescaled but not dropped"
        yield 1 - p, "1 - dropout: scaled at evaluation"
    if tap == "images":
        yield 255.0, "255: bytes, not divided"
        yield 1 / 255, "1 / 255: divided twice"


def scaled(pair: Pair, context: Context) -> Iterator[Cause]:
    """B = c · A: c is a known constant, or is fitted where there are more than MANY elements."""
    a, b = pair.expected, pair.found
    c = float((a * b).sum() / (a * a).sum())
    if pair.distance and abs(c + 1) <= 10 * pair.noise:
        yield from pair.cause("negated", "B = -A", -a)
        return
    meanings: dict[float, list[str]] = {}
    for value, meaning in known_constants(pair.tap, context):
        if abs(c - value) <= 10 * pair.noise * abs(value) or c == value:
            meanings.setdefault(value, []).append(meaning)
    for value, names in meanings.items():
        yield from pair.cause("scaled", f"B = {value:.6g} · A: {' or '.join(names)}", value * a)
    if not meanings and a.size > MANY:
        yield from pair.cause("scaled", f"B = {factor(c)} · A", c * a, fitted=1)


def factor(c: float) -> str:
    """A factor as text; one that six digits would show as 1 is shown as a sum."""
    if c == 1 or f"{c:.6g}" != "1":
        return f"{c:.6g}"
    return f"(1 {'+' if c > 1 else '-'} {abs(c - 1):.2g})"


def offset(pair: Pair, context: Context) -> Iterator[Cause]:
    """B = A + t, with t constant along some axes; the smallest t that fits is named."""
    delta = pair.found - pair.expected
    groups = [g for n in range(1, delta.ndim + 1) for g in combinations(range(delta.ndim), n)]
    for group in sorted(groups, key=lambda g: -np.prod([delta.shape[i] for i in g])):
        t = delta.mean(axis=group, keepdims=True)
        if 2 * t.size > delta.size or delta.size - t.size < 3:
            return
        along = f"constant along axes {group}" if t.size > 1 else f"the constant {t.item():.6g}"
        hits = list(pair.cause("offset", f"B - A is {along}", pair.expected + t, t.size))
        if hits:
            named = list(parameters(pair, t, context))
            yield from named or hits
            return


def parameters(pair: Pair, t: Array, context: Context) -> Iterator[Cause]:
    """The parameter, if any, that equals the offset t or -t."""
    for name, value in context.params.items():
        if value.size != t.size or value.size == 1 or not value.any():
            continue
        p = value.astype(np.float64).reshape(t.shape)
        for sign, what in ((-1, "without"), (1, "with another")):
            if np.linalg.norm(t - sign * p) <= 0.01 * np.linalg.norm(p):
                text = f"B is A {what} {name}"
                yield from pair.cause("bias", text, pair.expected + sign * p)


def dropped(pair: Pair, context: Context) -> Iterator[Cause]:
    """Zeros in B where A has none; the rest is unchanged or scaled by 1 / (1 - p)."""
    zeros = (pair.found == 0) & (pair.expected != 0)
    kept = ~zeros & (pair.expected != 0)
    if zeros.sum() < 5 or kept.sum() < MANY:
        return
    a, b = pair.expected[kept], pair.found[kept]
    c = float((a * b).sum() / (a * a).sum())
    share = float(zeros.mean())
    scale = 1.0 if abs(c - 1) <= 10 * pair.noise else c
    hypothesis = np.where(zeros, 0.0, scale * pair.expected)
    spread = 5 * (share * (1 - share) / zeros.size) ** 0.5  # five standard deviations
    if scale > 1 and abs((1 - 1 / scale) - share) <= spread:
        text = f"dropout is on: {share:.0%} zeros, the rest times 1 / (1 - {1 - 1 / scale:.3g})"
        yield from pair.cause("dropout", text, hypothesis, fitted=int(zeros.sum()) + 1)
    elif scale == 1:
        text = f"{share:.1%} of B is zero where A is not, and the rest agrees"
        yield from pair.cause("zeros", text, hypothesis, fitted=int(zeros.sum()))


def other_update(pair: Pair, context: Context) -> Iterator[Cause]:
    """B is A's tap after another update, earlier or later."""
    if context.position is None:
        return
    for place, value in enumerate(context.sequence):
        step = place - context.position
        if step:
            text = f"B is A {abs(step)} update{'s' * (abs(step) > 1)} {when(step)}"
            yield from pair.cause("update", text, value.astype(np.float64))


def when(step: int) -> str:
    """The sign of a distance in updates, as a word."""
    return "later" if step > 0 else "earlier"


def other_tap(pair: Pair, context: Context) -> Iterator[Cause]:
    """B is another tap of A: the wrong variable was used, or the operation was left out."""
    few = slice(0, 64)
    for name, value in context.taps.items():
        if name == pair.tap or value.shape != pair.found.shape or value.size < 3:
            continue
        start = value.ravel()[few].astype(np.float64) - pair.found.ravel()[few]
        if np.linalg.norm(start) <= 0.1 * np.linalg.norm(pair.found.ravel()[few]):
            text = f"B is A's {name}"
            yield from pair.cause("other tap", text, value.astype(np.float64))


def place(pair: Pair, context: Context) -> Iterator[Cause]:
    """The slices along one axis that differ, if the others agree to the noise."""
    delta = pair.found - pair.expected
    for axis, count in enumerate(delta.shape):
        rest = tuple(i for i in range(delta.ndim) if i != axis)
        error, size = (np.sqrt((x * x).sum(axis=rest)) for x in (delta, pair.expected))
        differ = np.flatnonzero(error > 10 * pair.noise * np.maximum(size, pair.size / count**0.5))
        if count < 2 or not 0 < len(differ) <= count / 2:
            continue
        hypothesis = pair.expected.copy()
        where = (slice(None),) * axis + (differ,)
        hypothesis[where] = pair.found[where]
        text = f"only {places(differ, count, axis_name(pair.tap, axis, context))} differ"
        yield from pair.cause("place", text, hypothesis, fitted=hypothesis[where].size)


def axis_name(tap: str, axis: int, context: Context) -> str:
    """The name of an axis of a tap."""
    row = context.made_by.get(tap.removeprefix("d/"))
    letters = row.axes.split() if row else []
    known = context.axes.get(letters[axis]) if axis < len(letters) else None
    return known or f"index of axis {axis}"


def places(differ: Array, count: int, name: str) -> str:
    """Positions along an axis, in words."""
    if differ.tolist() == [0]:
        return "the class token (0)" if name == "token" else f"the first {name} (0)"
    if differ.tolist() == [count - 1]:
        return f"the last {name} ({count - 1})"
    listed = ", ".join(str(i) for i in differ[:8])
    return f"{len(differ)} of {count} in {name}: {listed}{' ...' if len(differ) > 8 else ''}"


def rounded_to(value: Array, bits: int) -> Array:
    """Rounded to `bits` stored bits of mantissa, ties to even; the exponent is float64's."""
    mantissa, exponent = np.frexp(value)
    rounded: Array = np.ldexp(np.rint(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)
    return rounded


def rounded(pair: Pair, context: Context) -> Iterator[Cause]:
    """Every element of B is a number of a shorter format, at most one unit from A.

    The residual is not the judge: noise in A moves single elements across a tie.
    """
    if pair.noise == 0 or pair.found.size < MANY:
        return
    for name, bits in FORMATS.items():
        exact = rounded_to(pair.found, bits) == pair.found
        near = np.abs(pair.found - pair.expected) <= 2.0**-bits * np.abs(pair.expected)
        if exact.all() and near.all() and (rounded_to(pair.expected, bits) != pair.expected).any():
            residual = pair.residual(rounded_to(pair.expected, bits))
            yield Cause("rounded", f"B is A rounded to {name}", residual)
            return


def zero_part(pair: Pair, context: Context) -> Iterator[Cause]:
    """B is zero at some places of an axis, where A is not, and equals A elsewhere."""
    for axis, count in enumerate(pair.expected.shape):
        others = tuple(i for i in range(pair.expected.ndim) if i != axis)
        zero = pair.expected.any(others) & ~pair.found.any(others)
        if not zero.any() or zero.all():
            continue
        at = np.flatnonzero(zero)
        expected = pair.expected.copy()
        np.moveaxis(expected, axis, 0)[at] = 0
        where = f"{at[0]} to {at[-1]}" if len(at) > 2 and len(at) == np.ptp(at) + 1 else ""
        where = f"index {where} of axis {axis} ({len(at)} of {count})" if where else ""
        text = f"B is zero at {where or places(at, count, axis_name(pair.tap, axis, context))}"
        is_gradient = "grad" in pair.tap or "backward" in pair.tap
        text += ": no gradient reaches this part, it is detached" if is_gradient else ""
        yield from pair.cause("zero part", text, expected)


Relation = Callable[[Pair, Context], Iterator[Cause]]
OTHER_SHAPE: tuple[Relation, ...] = (axes,)
RELATIONS: tuple[Relation, ...] = (
    scaled,
    offset,
    axes,
    order,
    shifted,
    zero_part,
    dropped,
    other_update,
    other_tap,
    place,
    rounded,
)

"""The likely cause of one row whose inputs agree, and the class that it belongs to."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity.comparison.verdict import Evidence, Row
from parity.diagnose.causes.facts import sampled
from parity.diagnose.causes.hypothesis import Rule, recomputed
from parity.diagnose.causes.pair import Array, Cause, Context, Pair, as_pair, ranked
from parity.diagnose.causes.relations import relations, special_values
from parity.diagnose.finding import Kind
from parity.diagnose.stages import place_of

MOST = 2**19  # of a tap with more numbers, only the first images are looked at for relations
# code -> class of the finding; every other code is another function
CLASSES: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "one-pass",
            "float32 constant",
            "short product",
            "rounded",
            "long sum",
            "fast math",
            "rounding",
        ),
        "less precise",
    ),
    **dict.fromkeys(
        (
            "frozen",
            "detached",
            "unused decay",
            "counter",
            "dropout",
            "no dropout",
            "statistics",
            "not loaded",
            "state",
        ),
        "other state",
    ),
    **dict.fromkeys(("settings", "one-sided", "layout"), "other structure"),
}
COUNTER = "num_batches_tracked"  # PyTorch's batch norm
FROZEN = "no gradient reaches the parameter: it is frozen or detached"


def class_of(code: str) -> Kind:
    """The class of a cause."""
    return CLASSES.get(code, "another function")


def likely(
    row: Row,
    evidence: Evidence,
    context: Context,
    rule: Rule,
    failed: dict[str, str] | None = None,
) -> tuple[Cause, bool] | None:
    """The likeliest cause of a row, and whether it was recomputed from the baseline's inputs.

    None if no cause is shown. Known mistakes come before relations: they say more. `failed` gets
    the taps whose operation could not be recomputed, and why.
    """
    place = f"{row.stage}/{row.tap}"
    found, expected = (t.taps.get(place) for t in (evidence.candidate, evidence.baseline))
    if not isinstance(found, np.ndarray) or not isinstance(expected, np.ndarray):
        return None
    if state := state_cause(row, evidence, context):
        return state, False
    if found.shape == expected.shape:
        for cause in special_values(found, expected, row.tap):
            return cause, False
    pair = as_pair(found, expected, context, place)
    if pair is None:
        return None
    causes = of_operation(pair, context, rule, failed if failed is not None else {})
    if causes:
        return causes[0], True
    made = context.made_by.get(place)
    names = (*made.reads, *made.params) if made else ()
    near = replace(
        context,
        taps={name: context.taps[name] for name in names if name in context.taps},
        params={name: context.params[name] for name in names if name in context.params},
    )
    if expected.size > MOST and found.shape == expected.shape:
        images = max(1, MOST // (expected.size // len(expected)))
        found, expected = found[:images], expected[:images]
    related = relations(found, expected, near, place)
    return (related[0], False) if related else None


def state_cause(row: Row, evidence: Evidence, context: Context) -> Cause | None:
    """The cause of state that a row shows, if it shows one."""
    place = f"{row.stage}/{row.tap}"
    found, expected = (t.taps.get(place) for t in (evidence.candidate, evidence.baseline))
    if not isinstance(found, np.ndarray) or not isinstance(expected, np.ndarray):
        return None
    return next(of_state(row, found, expected, context), None)


def of_operation(pair: Pair, context: Context, rule: Rule, failed: dict[str, str]) -> list[Cause]:
    """The known mistakes of the operation that reproduce B, best first.

    A large tap is looked at in part. The facts in a manifest are another program's: where they do
    not fit the arrays, nothing is recomputed, and `failed` gets the reason. The answer shows it,
    because it may as well be a mistake of a rule.
    """
    recompute = rule(pair.tap, context)
    if recompute is None:
        return []
    try:
        with np.errstate(all="ignore"):
            return ranked(list(recomputed(recompute, sampled(pair), context)), pair.noise)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        failed[pair.tap] = f"{type(error).__name__}: {error}"
        return []


def of_state(row: Row, found: Array, expected: Array, context: Context) -> Iterator[Cause]:
    """Causes that are not of a function: frozen parameters, weight decay alone, dropout."""
    place = place_of(row.stage, row.tap)
    if place.kind == "random":
        mode = "training" if place.training else "evaluation"
        if expected.all():
            text = f"dropout is never active in {mode}: two passes of the candidate are equal"
            yield Cause("no dropout", text, 0.0)
        else:
            yield Cause("dropout", f"dropout is active in {mode}, in the candidate alone", 0.0)
    elif row.tap.endswith(COUNTER) and expected.any() and not found.any():
        yield Cause("counter", "the batches are not counted", 0.0)
    elif place.kind in ("gradients", "update") and expected.any() and not found.any():
        yield Cause("frozen", FROZEN, 0.0)
    elif place.kind == "update" and not expected.any() and found.shape == expected.shape:
        weight = context.params.get(place.name)
        if weight is None or weight.shape != found.shape or not weight.any():
            return
        w, step = weight.astype(np.float64), found.astype(np.float64)
        share = float((w * step).sum() / (w * w).sum())
        left = float(np.linalg.norm(step - share * w) / np.linalg.norm(step))
        if share < 0 and left <= 1e-3:  # the step is a difference of float32 weights
            text = "weight decay moves parameters that have no gradient"
            yield Cause("unused decay", f"{text}: step = {share:.4g} · weight", left, 1)

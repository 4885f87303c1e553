"""Taps that are zero by structure, and taps that prove nothing."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from parity.comparison.chance import FLOOR_FACTOR
from parity.comparison.measure import ROUNDOFF, constant, norm, relative, size_of, unfit
from parity.comparison.noise import Noise, measure_noise
from parity.comparison.sketch import Tap
from parity.comparison.trace import Trace, distance
from parity.comparison.verdict import EXACT, Evidence, Row, Verdict

ZERO_FACTOR = 1e3  # a reference below this many roundoffs of its sibling is zero by structure;
ZERO_BOUND = 32.0  # the candidate must then lie below this many
SCATTER = 0.3  # recordings of a zero by structure are apart by more than this part of their size
NOISE_LIMIT = 1e-2  # relative errors cannot judge a tap that is noisier than this
ZERO = "zero by structure"
ZERO_STEP = "the step of a gradient that is zero by structure"
ALL_ZERO = "zero in the baseline"
CONSTANT = "the same number everywhere in the baseline"
UNMOVED = "other weights do not change it"
# A unit in the last place of the weights need not move these: a step is as coarse as the parameter
# that it changes, and an accuracy counts images.
COARSE = ("step/*", "ema/*", "accuracy")
TOO_MANY_FOR_CHANCE = 16  # so many numbers are not all rounded to the same bits by chance


def structural_zero(
    name: str, evidence: Evidence, reference: Trace, entry: Mapping[str, Any] | None
) -> Verdict | None:
    """The verdict on a tap that is zero by structure; None if it is not such a tap.

    Example: the gradient of a key bias is zero, because softmax is invariant to shifts. The
    computed gradient is noise, and ratios of noise mean nothing. It must be small relative to its
    sibling, such as the query bias, or at most a few times the noise that the baseline and its
    variants have there. If that noise is itself not small, or the reference is not zero but noise,
    the tap is undecided, unless the candidate is far above the noise.
    """
    baseline = evidence.baseline.taps
    for sibling in _siblings(name, evidence):
        if not {name, sibling} <= reference.taps.keys():
            continue
        if any(unfit(baseline[n], reference.taps[n], same_type=False) for n in (name, sibling)):
            return None
        scale = norm(reference.taps[sibling])
        roundoff = ROUNDOFF[evidence.candidate.manifest["precision"]]
        # an isolated operation is fed in the pair's precision, even if it computes in float64
        isolated = reference.manifest.get("kind") == "isolated"
        exact = roundoff if isolated else ROUNDOFF[reference.manifest["precision"]]
        variants = [variant for variant in evidence.baseline_variants if name in variant.taps]
        noise = max(norm(trace.taps[name]) for trace in (evidence.baseline, *variants))
        size = norm(evidence.candidate.taps[name])
        if norm(reference.taps[name]) > ZERO_FACTOR * exact * scale:
            if all(distance(name, variant, reference) <= NOISE_LIMIT for variant in variants):
                return None
            return "different" if size > ZERO_BOUND * noise else "undecided"
        relative = float(entry["allow"].get("relative", 0)) if entry else 0.0
        bound = max(FLOOR_FACTOR * noise, max(ZERO_BOUND * roundoff, relative) * scale)
        if size > bound:
            return "different"
        return "equivalent" if noise <= ZERO_FACTOR * roundoff * scale else "undecided"
    return None


def found_zero(
    name: str, row: Row, evidence: Evidence, reference: Trace, noise: Noise
) -> Verdict | None:
    """The verdict on a tap whose own noise shows that it is zero by structure; None if not shown.

    The reference must be as much smaller than the float32 recordings as its roundoff is smaller
    (within a factor of `ZERO_FACTOR`): then both are rounding alone. In one precision, recordings
    that only differ by noise must be as far apart as they are large. No size of a true gradient
    passes either test: float32 noise never hides nine digits of it.

    The tap must also be small beside the other taps of its group (`group_scale`). Else it is noise
    that cannot be judged.
    """
    if name not in evidence.candidate.taps:
        return None
    if exact_zero(name, evidence, reference):
        return "vacuous"
    if row.noise_floor <= NOISE_LIMIT:
        return None
    group = group_scale(name, evidence, reference)
    unit = ROUNDOFF[evidence.candidate.manifest["precision"]]
    recordings = [evidence.baseline, *evidence.baseline_variants]
    recordings += [trace for pair in evidence.baseline_scatter for trace in pair]
    sizes = [norm(t.taps[name]) for t in recordings if name in t.taps and t is not reference]
    largest, exact = max(sizes, default=0.0), norm(reference.taps[name])
    if evidence.reference is None:
        shown = max(largest, exact) > 0 and max(noise.variant_steps, default=0.0) > SCATTER
        largest = max(largest, exact)
    elif reference.manifest.get("kind") == "isolated":  # its inputs have the pair's roundoff
        shown = exact <= ZERO_FACTOR * unit * group
    else:
        finer = ROUNDOFF[reference.manifest["precision"]] / unit
        shown = finer < 1 / ZERO_FACTOR and exact <= ZERO_FACTOR * finer * largest
    if not shown or not group or largest > ZERO_FACTOR * unit * group:
        return None
    bound = max(FLOOR_FACTOR * largest, ZERO_BOUND * unit * group)
    return "equivalent" if norm(evidence.candidate.taps[name]) <= bound else "different"


def exact_zero(name: str, evidence: Evidence, reference: Trace) -> bool:
    """Whether all recordings of the baseline are exactly zero there, and the candidate's numbers
    are rounding beside the other taps of the group."""
    traces = [reference, evidence.baseline, *evidence.baseline_variants]
    if any(norm(trace.taps[name]) for trace in traces if name in trace.taps):
        return False
    size = norm(evidence.candidate.taps[name])
    unit = ROUNDOFF[evidence.candidate.manifest["precision"]]
    return 0 < size <= ZERO_BOUND * unit * group_scale(name, evidence, reference)


def step_of_zero(name: str, row: Row, evidence: Evidence, reference: Trace) -> Verdict | None:
    """The verdict on an optimiser's step along a gradient that is zero by structure; else None.

    Adam divides a gradient by its own size, so its step along a zero is noise as large as the rate.
    Nothing but its size can be compared: the tap is vacuous.
    """
    prefix, _, parameter = row.tap.partition("/")
    if prefix != "step" or row.noise_floor <= SCATTER:
        return None
    stages = ("training gradients", "gradients")
    gradients = [f"{stage}/{word}{parameter}" for stage in stages for word in ("", "grad/")]
    gradient = next((tap for tap in gradients if tap in evidence.baseline.taps), None)
    if gradient is None or not all(gradient in t.taps for t in (evidence.candidate, reference)):
        return None
    about = replace(row, stage=gradient.partition("/")[0], tap=gradient.partition("/")[2])
    noise = measure_noise(gradient, about, evidence)
    about = replace(about, noise_floor=noise.floor)
    if found_zero(gradient, about, evidence, reference, noise) != "equivalent":
        return None
    recordings = [evidence.baseline, reference, *evidence.baseline_variants]
    largest = max(norm(trace.taps[name]) for trace in recordings if name in trace.taps)
    small = norm(evidence.candidate.taps[name]) <= FLOOR_FACTOR * largest
    return "vacuous" if small else "different"


def maybe_zero(name: str, evidence: Evidence) -> bool:
    """Whether a gradient may be zero by structure, as two traces alone show it: by its size.

    On both sides it is as small beside the other gradients of its module as rounding makes a zero.
    The step of such a parameter is in doubt with it.
    """
    stage, _, tap = name.partition("/")
    if tap.startswith("step/"):
        gradients = [
            f"{s}/{tap.removeprefix('step/')}" for s in ("training gradients", "gradients")
        ]
        both = (evidence.baseline.taps, evidence.candidate.taps)
        known = [g for g in gradients if all(g in taps for taps in both)]
        return bool(known) and maybe_zero(known[0], evidence)
    if not stage.endswith("gradients"):
        return False
    scale = group_scale(name, evidence, evidence.baseline)
    unit = ROUNDOFF[evidence.candidate.manifest["precision"]]
    sizes = [norm(trace.taps[name]) for trace in (evidence.baseline, evidence.candidate)]
    return max(sizes) <= ZERO_FACTOR * unit * scale


def group_scale(name: str, evidence: Evidence, reference: Trace) -> float:
    """The size of what a tap is small beside: the largest other tap of its module in its stage.

    A bias is measured by its weight. A tap without others is measured by the stage's median.
    """
    stage, _, tap = name.partition("/")
    parent, dot, _ = tap.rpartition(".")
    taps = evidence.baseline.taps
    others = [o for o in reference.taps if o.startswith(f"{stage}/") and o != name and o in taps]
    near = [other for other in others if dot and other.startswith(f"{stage}/{parent}.")]
    sizes = [_size(other, evidence, reference) for other in near]
    if any(sizes):
        return max(sizes)
    sizes = [_size(other, evidence, reference) for other in others]
    return float(np.median([size for size in sizes if size] or [0.0]))


def _size(name: str, evidence: Evidence, reference: Trace) -> float:
    """The size of a tap of the reference; 0 if it cannot be compared."""
    tap = reference.taps[name]
    if np.dtype(tap.dtype).kind != "f":
        return 0.0
    return 0.0 if unfit(evidence.baseline.taps[name], tap, same_type=False) else norm(tap)


def _siblings(name: str, evidence: Evidence) -> list[str]:
    """Taps of the baseline that give the scale of a tap that is zero by structure."""
    pairs = ((pattern, text.split(">")) for pattern, text in evidence.siblings.items())
    found = [name.replace(old, new) for pattern, (old, new) in pairs if fnmatchcase(name, pattern)]
    return [sibling for sibling in found if sibling in evidence.baseline.taps]


def without_vacuous(row: Row, evidence: Evidence) -> Row:
    """The row, `vacuous` if the tap agrees but no fault could have changed it."""
    name = f"{row.stage}/{row.tap}"
    tap = evidence.baseline.taps.get(name)
    if row.verdict != "equivalent" or tap is None:
        return row
    if row.reason == ZERO:  # small beside its sibling, if that is not zero itself
        sizes = [norm(evidence.baseline.taps[s]) for s in _siblings(name, evidence)]
        return row if all(sizes) else replace(row, verdict="vacuous", reason=ALL_ZERO)
    kind = np.dtype(tap.dtype).kind
    if kind == "f" and norm(tap) == 0:
        return replace(row, verdict="vacuous", reason=ALL_ZERO)
    if kind != "b" and constant(tap):
        return replace(row, verdict="vacuous", reason=CONSTANT)
    coarse = any(fnmatchcase(row.tap, pattern) for pattern in COARSE)
    if kind == "f" and not (coarse or row.stage in EXACT) and _never_moves(name, tap, evidence):
        return replace(row, verdict="vacuous", reason=UNMOVED)
    return row


def _never_moves(name: str, tap: Tap, evidence: Evidence) -> bool:
    """Whether the tap has the same bits in all recordings with other weights, and not by chance."""
    others = [
        variant.taps[name]
        for variant in evidence.baseline_variants
        if name in variant.taps and str(variant.manifest.get("variant")).startswith("ulp")
    ]
    unmoved = all(relative(other, tap) == 0 for other in others)
    return unmoved and size_of(tap) * len(others) >= TOO_MANY_FOR_CHANCE

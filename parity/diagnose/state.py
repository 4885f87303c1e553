"""Weights that are unequal at the start: what shows in their numbers."""

from parity.comparison.verdict import Row
from parity.diagnose.sources import Sources, WholeArrays, shape_of
from parity.matching.layouts import layout_of
from parity.matching.weights import unlike

SKETCHED = "other numbers"  # of a large array, only a sketch may be stored


def unequal_weight(row: Row, sources: Sources) -> tuple[str, str]:
    """The kind of a difference (`zeros`, `reversed`, ...), and a sentence about it.

    `row` is of a stage that holds what is loaded: both sides must be equal to the bit.
    """
    evidence = sources.of_row(row)
    if evidence is None:
        return "numbers", SKETCHED
    ours, theirs = (WholeArrays(t, row.stage) for t in (evidence.baseline, evidence.candidate))
    if row.tap not in ours or row.tap not in theirs:
        return "numbers", SKETCHED
    value, other = ours[row.tap], theirs[row.tap]
    shape = tuple(other.shape)
    same = {n for n in ours if shape_of(evidence.baseline, f"{row.stage}/{n}") == shape}
    kind, text = unlike(row.tap, value, other, {name: ours[name] for name in same})
    layout = layout_of(other, value) if kind == "layout" else None
    if layout:  # `matched.py` has those whose modules give right numbers
        order = "transposed" if layout.name == "(in, out)" else f"in another order, {layout.name},"
        text = f"{order} in the candidate, whose module computes with it as it is"
    return kind, text


def label_of(row: Row, sources: Sources) -> str:
    """`two.weight (8, 8)`: a parameter with its shape."""
    evidence = sources.of_row(row)
    name = f"{row.stage}/{row.tap}"
    if evidence is None or name not in evidence.baseline.taps:
        return row.tap
    return f"{row.tap} {shape_of(evidence.baseline, name)}"

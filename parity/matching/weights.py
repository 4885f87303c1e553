"""What is unlike in two sets of weights, by parameter; and one set brought under other names.

for problem in unequal(baseline_weights, candidate_weights):
    print(problem)      # conv1.weight (64, 3, 7, 7): the channels are reversed
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.errors import ParityError
from parity.listing import some
from parity.matching.declared import Declared, with_parts
from parity.matching.layouts import SAME, layout_by_shape, layout_of
from parity.matching.named import Array, Match, Named, as_named, pattern_of
from parity.matching.names import match

MOST = 8  # problems that a message shows


@dataclass(frozen=True)
class Unequal:
    """A parameter that is not equal on both sides, and what shows in its numbers.

    Kinds: `missing`, `extra`, `shape`, `layout`, `reversed`, `scaled`, `zeros`, `constant`,
    `exchanged`, `numbers`.
    """

    name: str  # the baseline's, or the candidate's for `extra`
    shape: tuple[int, ...]
    kind: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.name} {self.shape}: {self.sentence}"


def unequal(
    baseline: Mapping[str, Array], candidate: Mapping[str, Array], found: Match | None = None
) -> list[Unequal]:
    """The parameters that are not equal to the bit, in the baseline's order, then extra ones.

    Args:
        found: which name is which; None: as `match` finds it.
    """
    found = found or match(as_named(baseline), as_named(candidate))
    partner = {pair.baseline: pair.candidate for pair in found.pairs}
    for doubt in found.doubts:  # refuted by their numbers, which is what is asked for here
        if len(doubt.baseline) == len(doubt.candidate) == 1:
            partner.setdefault(doubt.baseline[0], doubt.candidate[0])
    problems = []
    for name, value in baseline.items():
        if name not in partner:
            problems.append(Unequal(name, value.shape, "missing", "the candidate has no such one"))
            continue
        other = candidate[partner[name]]
        if value.shape != other.shape or not np.array_equal(value, other):
            kind, sentence = unlike(name, value, other, baseline)
            problems.append(Unequal(name, value.shape, kind, sentence))
    used = set(partner.values())
    return problems + [
        Unequal(name, value.shape, "extra", "only the candidate has it")
        for name, value in candidate.items()
        if name not in used
    ]


def summary(problems: Sequence[Unequal], total: int) -> str:
    """`59 of 60 parameters equal; conv1.weight (64, 3, 7, 7): ...`, with the first problems."""
    count = total - sum(problem.kind != "extra" for problem in problems)
    equal = f"{count} of {total} parameters equal"
    return f"{equal}; {some(problems, MOST, '; ')}" if problems else equal


def unlike(name: str, value: Array, other: Array, baseline: Mapping[str, Array]) -> tuple[str, str]:
    """Kind and sentence of the first explanation that reproduces the candidate's numbers.

    Args:
        name, value: the baseline's parameter.
        other: the candidate's.
        baseline: other parameters of the baseline, one of which the candidate may have here.
    """
    for twin, twin_value in baseline.items():
        if twin != name and twin_value.shape == other.shape and not _constant(other):
            if np.array_equal(twin_value, other):
                return "exchanged", f"has the numbers of {twin}"
    layout = layout_of(other, value)
    if layout and layout.name != SAME:
        return "layout", f"the same numbers, but {layout.name} {other.shape}; declare the layout"
    if value.shape != other.shape:
        return "shape", f"has shape {other.shape} in the candidate"
    if not other.any():
        return "zeros", "all zero in the candidate: not loaded?"
    if _constant(other) and not _constant(value):
        return "constant", f"{other.flat[0]:.6g} everywhere in the candidate: not loaded?"
    for axis in range(value.ndim):
        if np.array_equal(np.flip(value, axis), other):
            return "reversed", f"reversed along axis {axis}" + (
                ", as if RGB were BGR" if value.ndim == 4 and axis == 1 else ""
            )
    factor = _factor(value, other)
    if factor is not None:
        return "scaled", f"{factor:.7g} times as large in the candidate"
    return "numbers", _greatest(value, other)


def _constant(value: Array) -> bool:
    return bool(value.size < 2 or (value == value.flat[0]).all())


def _factor(value: Array, other: Array) -> float | None:
    """The factor between two arrays, if one explains all but rounding."""
    ours, theirs = value.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    square = float(ours @ ours)
    if value.size < 2 or not square or not np.isfinite(square):
        return None
    factor = float(ours @ theirs) / square
    left = np.linalg.norm(theirs - factor * ours)
    # a factor close to 1 is a small difference of the numbers, not a scale
    is_scale = abs(factor - 1) > 1e-4 and abs(factor) > 1e-6
    return factor if is_scale and left <= 1e-5 * np.linalg.norm(theirs) else None


def _greatest(value: Array, other: Array) -> str:
    """The greatest difference and its place."""
    gap = np.abs(value.astype(np.float64) - other.astype(np.float64))
    worst = np.where(np.isnan(gap), np.inf, gap).argmax()
    index = tuple(int(i) for i in np.unravel_index(worst, gap.shape))
    count = int((value != other).sum())
    return (
        f"{count} of {value.size} numbers differ; greatest difference {gap[index]:.3g} at {index}: "
        f"{other[index]:.7g}, not {value[index]:.7g}"
    )


@dataclass(frozen=True)
class Placed:
    """Weights under the candidate's names, and what has no place."""

    arrays: dict[str, Array]
    match: Match
    problems: tuple[str, ...]
    total: int

    def require(self, place: str) -> dict[str, Array]:
        """The arrays.

        Raises:
            ParityError: a parameter has no place; the text begins with `place` and lists all.
        """
        if self.problems:
            raise ParityError(
                f"{place}: {len(self.arrays)} of {self.total} parameters have a place; "
                + some(self.problems, MOST, "; ")
            )
        return self.arrays


def place_weights(
    weights: Mapping[str, Array],
    candidate: Sequence[Named],
    declared: Declared | None = None,
    optional: Collection[str] = (),
) -> Placed:
    """The baseline's weights under the candidate's names and in its shapes.

    Args:
        weights: by the baseline's names, in the order of its model.
        candidate: names and shapes of the candidate's state, in order, without values.
        declared: the user's names and layouts. A layout that is not declared is not applied.
        optional: the baseline's names that the candidate may lack, such as counters.

    Raises:
        ParityError: a pattern is wrong.
    """
    declared = declared or Declared()
    aliases = [alias[1] for item in candidate if (alias := declared.alias(item.name))]
    weights = with_parts(weights, aliases)
    found = match(as_named(weights, known=False), candidate, declared.names)
    shapes = {item.name: item.shape for item in candidate}
    placed, problems = {}, []
    for pair in found.pairs:
        value, shape = weights[pair.baseline], shapes[pair.candidate]
        layout = declared.layout(pair.candidate)
        try:
            value = layout.undo(value, shape) if layout else value
        except ParityError as error:
            problems.append(f"{pair.candidate}: {error}")
            continue
        if value.shape != shape:
            problems.append(_other_shape(pair.baseline, value.shape, pair.candidate, shape))
        else:
            placed[pair.candidate] = value
    problems += _without_partner(found, weights, shapes, optional)
    return Placed(placed, found, tuple(problems), len(weights))


def _without_partner(
    found: Match,
    weights: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    optional: Collection[str],
) -> list[str]:
    """A phrase for each parameter that has no sure partner."""
    return [
        *[
            f"{some(doubt.baseline, 3, ' or ')} and {some(doubt.candidate, 3, ' or ')}: {doubt.why}"
            for doubt in found.doubts
        ],
        *{str(fused.lines()): fused.sentence() for fused in found.fused}.values(),
        *[
            f"{name} {weights[name].shape}: the candidate has no such parameter; add it, or a line "
            "to names"
            for name in found.only_baseline
            if name not in optional
        ],
        *[
            f"{name} {shapes[name]}: the baseline has no such parameter; add it, or a line to names"
            for name in found.only_candidate
        ],
    ]


def _other_shape(
    name: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]
) -> str:
    """A phrase about a pair of unequal shapes, with the line that declares a layout."""
    text = f"{name}: expected shape {shape}, found {other} {other_shape}"
    layout = layout_by_shape(other_shape, shape)
    if not layout:
        return f"{text}; the two are no known layouts of one array"
    return f"{text}; add the line `{pattern_of(other)}: {layout.name}` to layouts"

"""The verdict on each tap of two traces, from evidence instead of chosen bounds.

A float32 result is right if it is as near to the float64 result as float32 can be expected to
come. How near that is, is measured: `floor` is the largest distance to the float64 reference among
several float32 recordings that compute the same function in another order or from weights moved by
one unit in the last place. A candidate passes if its own distance is at most

    max(FLOOR_FACTOR · floor, ROUNDOFF_FACTOR · u)        u: unit roundoff of the precision

and the first recording's distance is held to the candidate's noise in the same way where that was
measured. The two factors were set on 21 clean comparisons and 51 planted faults (docs/parity.md).
The same rule judges float64 against float64, where every difference that is left is another
function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from parity.measure import ROUNDOFF, Gap, gap, norm
from parity.trace import Array, Trace, refuse_mixture

FLOOR_FACTOR = 5.0
ROUNDOFF_FACTOR = 8.0
ZERO_FACTOR = 1e3  # a reference below this many roundoffs of its sibling is zero by structure
ZERO_BOUND = 32.0  # and what is computed must lie below so many
EXACT = ("parameters", "loading")  # rungs in which nothing is computed: equal bits
OURS = ("case", "pieces", "continue", "pipeline")  # kinds of traces that differences.yaml is for
ZERO = "zero by structure"
FIRST_OFF = "the first trace is further from float64 than the candidate's noise explains"
NOISE_LIMIT = 1e-2  # a tap that is noisier than this cannot be judged by relative errors
DIFFERENCES = Path(__file__).with_name("differences.yaml")

Verdict = Literal["equivalent", "different", "undecided"]
SEVERITY: dict[Verdict, int] = {"equivalent": 0, "undecided": 1, "different": 2}
EXIT_CODES: dict[Verdict, int] = {"equivalent": 0, "different": 1, "undecided": 2}


@dataclass(frozen=True)
class Row:
    """The verdict on one tap. Errors, floor and bound are relative L2 to the float64 reference
    where there is one, else to the first trace."""

    case: str
    rung: str
    tap: str
    precision: str
    pair: str
    verdict: Verdict
    error: float  # of the candidate
    other: float  # of the first trace
    floor: float  # largest of the first trace and its variants
    bound: float
    own: float  # largest of the candidate's variants
    between: float  # of the two traces
    reason: str = ""
    index: tuple[int, ...] | None = None  # of the element that is furthest apart
    values: tuple[float, float] | None = None
    bias: float = 0.0
    ulps: float = 0.0
    ties: tuple[dict[str, Any], ...] = ()

    @property
    def ratio(self) -> float:
        """Error in units of the bound: above 1 the tap fails."""
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound else np.inf

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"ratio": self.ratio}


@dataclass(frozen=True)
class Evidence:
    """What a pair of traces is judged by."""

    first: Trace
    candidate: Trace
    exact: Trace | None = None  # the first one's function in float64
    first_variants: Sequence[Trace] = ()
    candidate_variants: Sequence[Trace] = ()
    siblings: Mapping[str, str] = field(default_factory=dict)  # see `structural_zero`

    def all(self) -> list[Trace]:
        """Every trace, the pair first."""
        exact = [self.exact] if self.exact else []
        return [
            self.first,
            self.candidate,
            *exact,
            *self.first_variants,
            *self.candidate_variants,
        ]


@cache
def load_differences() -> list[dict[str, Any]]:
    """The documented differences."""
    entries: list[dict[str, Any]] = yaml.safe_load(DIFFERENCES.read_text(encoding="utf-8"))
    return entries


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for many; nothing compared is nothing decided."""
    return max(verdicts, key=SEVERITY.__getitem__, default="undecided")


def judge(
    evidence: Evidence, without: Sequence[str] = (), only: Sequence[str] | None = None
) -> list[Row]:
    """One row per tap, in data order; a tap that only one trace has is `different`.

    Floating-point taps are judged by the evidence (where nothing is computed they must be equal),
    integers must be equal (but for ties of part indices), and booleans of the pipeline are claims,
    which must hold in both.

    Args:
        without: rungs to leave out.
        only: taps (`rung/tap`) to judge instead of all; an empty list is none.

    Raises:
        UserError: the traces are not of one computation.
    """
    refuse_mixture(evidence.all())
    names = dict.fromkeys([*evidence.first.taps, *evidence.candidate.taps])
    wanted = [name for name in names if name.partition("/")[0] not in without]
    return [judge_tap(name, evidence) for name in (wanted if only is None else only)]


def judge_tap(name: str, evidence: Evidence) -> Row:
    """The verdict on one tap."""
    first, candidate = evidence.first, evidence.candidate
    rung, _, tap = name.partition("/")
    row = Row(
        case=str(first.manifest.get("case", "")),
        rung=rung,
        tap=tap,
        precision=candidate.manifest["precision"],
        pair=f"{candidate.producer('name')} : {first.producer('name')}",
        verdict="different",
        error=np.inf,
        other=0.0,
        floor=0.0,
        bound=0.0,
        own=0.0,
        between=np.inf,
    )
    for trace in (first, candidate):
        if name not in trace.taps:
            return replace(row, reason=f"absent from {trace.label} ({trace.path.name})")
    between = gap(candidate.taps[name], first.taps[name])
    row = replace(
        row,
        between=between.relative,
        error=between.relative,
        index=between.index,
        values=between.values,
        bias=between.bias,
        ulps=between.ulps,
    )
    if between.reason and np.dtype(candidate.taps[name].dtype).kind != "f":
        return with_ties(name, row, evidence, between)
    if between.reason:
        return replace(row, reason=between.reason)
    if 0 in first.taps[name].shape:
        return replace(row, verdict="undecided", reason="empty: nothing to compare")
    held = whole(first, name)
    claims = first.manifest.get("kind") == "pipeline"  # elsewhere booleans are masks and the like
    if claims and held is not None and held.dtype.kind == "b" and not held.all():
        return replace(row, reason="a claim that does not hold")
    if np.dtype(first.taps[name].dtype).kind != "f":
        return replace(row, verdict="equivalent")
    if rung in EXACT:
        return replace(row, verdict="equivalent" if row.error == 0 else "different")
    return with_evidence(name, row, evidence)


def with_evidence(name: str, row: Row, evidence: Evidence) -> Row:
    """The verdict on a floating-point tap that both traces have."""
    reference = evidence.exact or evidence.first
    variants = [distance(name, t, reference) for t in evidence.first_variants if name in t.taps]
    own = [distance(name, t, reference) for t in evidence.candidate_variants if name in t.taps]
    other = distance(name, evidence.first, reference)
    roundoff = ROUNDOFF[row.precision]
    floor = max([other, *variants])
    row = replace(
        row,
        error=distance(name, evidence.candidate, reference),
        other=other,
        own=max(own, default=0.0),
        floor=floor,
        bound=max(FLOOR_FACTOR * floor, ROUNDOFF_FACTOR * roundoff),
    )
    entry = documented(row, evidence)
    zero = structural_zero(name, evidence, reference, entry)
    if zero is not None:
        return replace(row, verdict=zero, reason=ZERO)
    if entry:
        row = allowed(row, evidence, entry)
        if row.verdict == "equivalent":
            return row
    if not (variants or evidence.exact):
        return without_evidence(row, roundoff)
    if row.error > row.bound:
        return row
    # a fault of the first trace alone would otherwise count as its noise
    if own and other > max(FLOOR_FACTOR * max(row.error, row.own), ROUNDOFF_FACTOR * roundoff):
        return replace(row, reason=FIRST_OFF)
    if floor > noise_limit(row):
        return replace(row, verdict="undecided", reason="its own noise is too large to tell")
    return replace(row, verdict="equivalent")


def noise_limit(row: Row) -> float:
    """How noisy the first may be: half of the digits, or NOISE_LIMIT if that is less.

    Steps may always have NOISE_LIMIT, since a parameter's last digit is a large part of them.
    """
    if row.tap.startswith("step/"):
        return NOISE_LIMIT
    return min(NOISE_LIMIT, float(ROUNDOFF[row.precision] ** 0.5))


def without_evidence(row: Row, roundoff: float) -> Row:
    """Two traces alone: a few roundings apart is the same, half of the digits lost is not."""
    if row.error <= ROUNDOFF_FACTOR * roundoff:
        return replace(row, verdict="equivalent")
    if row.error > roundoff**0.5:
        return replace(row, bound=roundoff**0.5)
    return replace(
        row, verdict="undecided", reason="no float64 reference and no variants to judge it by"
    )


def distance(name: str, trace: Trace, reference: Trace) -> float:
    """Relative L2 of one tap; infinite where either lacks it."""
    if name not in trace.taps or name not in reference.taps:
        return np.inf
    return gap(trace.taps[name], reference.taps[name], same_type=False).relative


def documented(row: Row, evidence: Evidence) -> dict[str, Any] | None:
    """The documented difference that covers this tap: the first in the file, or none."""
    for entry in load_differences():
        if "allow" in entry and _covers(entry["allow"], row, evidence):
            return entry
    return None


def allowed(row: Row, evidence: Evidence, entry: Mapping[str, Any]) -> Row:
    """The row with the verdict `equivalent` where a documented difference accounts for it.

    An entry bounds either the error, relative to the reference, or the largest difference of two
    elements of the pair.
    """
    allow, name = entry["allow"], f"{row.rung}/{row.tap}"
    if "relative" in allow:
        value, bound = row.error, float(allow["relative"])
    else:
        value = gap(evidence.candidate.taps[name], evidence.first.taps[name]).absolute
        bound = float(allow["absolute"])
    if value > bound:
        return row
    return replace(row, verdict="equivalent", bound=max(bound, row.bound), reason=entry["id"])


def _covers(allow: Mapping[str, Any], row: Row, evidence: Evidence) -> bool:
    names = {str(t.producer("name")) for t in (evidence.first, evidence.candidate)}
    return (
        evidence.first.manifest.get("kind") in OURS
        and row.case in allow.get("cases", [row.case])
        and row.rung in allow.get("rungs", [row.rung])
        and row.precision == allow.get("precision", row.precision)
        and allow.get("backend", row.pair) in {*names, row.pair}
        and any(fnmatchcase(row.tap, pattern) for pattern in allow["taps"])
    )


def structural_zero(
    name: str, evidence: Evidence, reference: Trace, entry: Mapping[str, Any] | None
) -> Verdict | None:
    """Whether a tap that is zero by structure is computed as next to nothing; None if it is none.

    The gradient of a key bias is zero by softmax's invariance to shifts; what is computed is noise
    whose ratio means nothing. It must be small beside its sibling, such as the query bias, or no
    more than a few times the noise that the first trace and its variants have there. Where that
    noise is itself no longer small, nothing can be told.
    """
    for pattern, (old, new) in ((p, s.split(">")) for p, s in evidence.siblings.items()):
        sibling = name.replace(old, new)
        if not fnmatchcase(name, pattern) or sibling not in reference.taps:
            continue
        roundoff = ROUNDOFF[evidence.candidate.manifest["precision"]]
        if entry:
            roundoff = max(roundoff, float(entry["allow"].get("relative", 0)))
        scale = norm(reference.taps[sibling])
        if norm(reference.taps[name]) > ZERO_FACTOR * roundoff * scale:
            return None
        noise = [
            norm(t.taps[name]) for t in (evidence.first, *evidence.first_variants) if name in t.taps
        ]
        bound = max(FLOOR_FACTOR * max(noise), ZERO_BOUND * roundoff * scale)
        if norm(evidence.candidate.taps[name]) > bound:
            return "different"
        return "equivalent" if max(noise) <= ZERO_FACTOR * roundoff * scale else "undecided"
    return None


def with_ties(name: str, row: Row, evidence: Evidence, between: Gap) -> Row:
    """Integers that differ: part indices may where the scores are closer than their noise.

    For an index tap `part_index` the scores are looked for in `part_scores` of the same rung.
    """
    reference = evidence.exact or evidence.first
    traces = (evidence.first, evidence.candidate, reference)
    scores = [whole(trace, f"{row.rung}/part_scores") for trace in traces]
    arrays = [array for array in scores if array is not None]
    index = [array for t in traces if (array := whole(t, name)) is not None]
    # without a place where they differ, they differ in shape or type
    if row.tap != "part_index" or between.index is None or len(arrays) < 3 or len(index) < 3:
        return replace(row, reason=between.reason)
    if {x.shape[:-1] for x in arrays} != {index[0].shape} or len({x.shape for x in arrays}) > 1:
        return replace(row, reason=f"{between.reason}, and part_scores do not fit")
    ties = find_ties(index, arrays)
    if all(tie["margin"] <= tie["noise"] for tie in ties):
        return replace(row, verdict="equivalent", error=0.0, ties=ties, reason=f"{len(ties)} ties")
    return replace(row, ties=ties, reason=between.reason)


def whole(trace: Trace, name: str) -> Array | None:
    """A tap that is there and is no sketch."""
    tap = trace.taps.get(name)
    return tap if isinstance(tap, np.ndarray) else None


def find_ties(index: Sequence[Array], scores: Sequence[Array]) -> tuple[dict[str, Any], ...]:
    """Where two traces chose differently: the margin of the choice and the noise of the scores.

    `index` (B, K) and `scores` (B, K, N) of the first trace, the candidate and the reference; the
    margin is the reference's difference between the two choices, and the noise twice the sum of
    both traces' largest errors in that row (whether these are too large, the scores' own verdict
    says). Patches count from 1.
    """
    first, candidate = index[:2]
    ties = []
    for place in np.argwhere(first != candidate):
        at = tuple(int(i) for i in place)
        one, two = int(first[at]) - 1, int(candidate[at]) - 1
        rows = [np.asarray(s[at], np.float64) for s in scores]
        inside = 0 <= two < rows[2].size and 0 <= one < rows[2].size
        errors = [float(np.abs(row - rows[2]).max()) for row in rows[:2]]
        ties.append(
            {
                "image": at[0],
                "head": at[-1],
                "first": one + 1,
                "candidate": two + 1,
                "margin": abs(float(rows[2][one] - rows[2][two])) if inside else np.inf,
                "noise": 2 * sum(errors),
            }
        )
    return tuple(ties)

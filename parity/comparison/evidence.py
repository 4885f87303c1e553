"""The role of each trace in a comparison; it follows from the manifests alone.

evidence = find_evidence([read_trace(path) for path in paths])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape

from parity.comparison.measure import ROUNDOFF
from parity.comparison.modes import MODES, Branch, branch_of
from parity.comparison.trace import PRODUCER, Trace
from parity.comparison.verdict import Evidence
from parity.errors import ParityError

# Facts by which a trace is assigned to a producer. A float64 reference may come from another
# device; variants may not, because they measure the noise of that device.
SAME = {"reference": PRODUCER[:2], "variant": PRODUCER}


def _side(trace: Trace, pair: Sequence[Trace], role: str) -> int:
    """0 if a trace is by the baseline's producer, 1 if it is by the candidate's."""
    producers = [tuple(t.producer(key) for key in SAME[role]) for t in (trace, *pair)]
    if producers[0] not in producers[1:]:
        texts = [", ".join(map(str, facts)) for facts in producers]
        raise ParityError(
            f"{trace.path}: a {role} by {texts[0]}, but the first two traces are by {texts[1]} and "
            f"by {texts[2]}; record it where one of them was recorded"
        )
    return producers[1:].index(producers[0])


def _refuse_pair(pair: Sequence[Trace], more: bool) -> None:
    for trace in pair:
        if trace.manifest.get("variant"):
            raise ParityError(
                f"{trace.path}: a variant ({trace.manifest['variant']}) among the first two; give "
                "first the two traces to compare, then variants and the float64 reference"
            )
        if trace.manifest["precision"] not in ROUNDOFF:
            raise ParityError(
                f"{trace.path}: precision {trace.manifest['precision']!r}: expected one of "
                f"{', '.join(ROUNDOFF)}"
            )
    if more and len({tuple(t.producer(key) for key in SAME["variant"]) for t in pair}) == 1:
        raise ParityError(
            f"{pair[0].path} and {pair[1].path} are by one producer, so the variants cannot be "
            "assigned to one of them; record the two under different names or versions"
        )
    baseline, candidate = (trace.manifest["precision"] for trace in pair)
    if baseline != candidate:
        raise ParityError(
            f"{pair[0].path} is in {baseline}, {pair[1].path} in {candidate}; the first two traces "
            "are the pair to compare; give two of one precision"
        )


@dataclass
class Pair:
    """A pair in one precision, with its evidence; `traces`, `variants`: (baseline, candidate)."""

    traces: list[Trace | None]
    reference: Trace | None = None
    variants: tuple[list[Trace], list[Trace]] = field(default_factory=lambda: ([], []))


def find_evidence(
    traces: Sequence[Trace],
    siblings: Mapping[str, str] | None = None,
) -> list[Evidence]:
    """The pairs to compare, each with its evidence; the manifests give each trace its role.

    The first two traces are the pair: baseline and candidate. Of the others:

    - a float64 recording by the baseline's producer is the reference;
    - if the candidate's producer recorded in float64 as well, these two are a second pair;
    - the baseline's producer may have two float64 recordings, if each follows other choices
      (`branch`): the reference those of the candidate, the other those of its float64 recording;
    - a variant measures the noise of its producer.

    Raises:
        ParityError: a trace has no role, or two traces have a role that only one can have.
    """
    zeros = traces[0].manifest.get("zeros") or {} if traces else {}
    declared = {escape(name): f"{name}>{sibling}" for name, sibling in zeros.items()}
    result = []
    for pair in _pairs(traces):
        baseline, candidate = pair.traces
        assert baseline and candidate
        evidence = Evidence(
            baseline,
            candidate,
            pair.reference,
            pair.variants[0],
            pair.variants[1],
            siblings={**declared, **(siblings or {})},
        )
        result.append(evidence)
    return result


def _float64_roles(
    candidate: Trace, baselines: Sequence[Trace], candidates: Sequence[Trace]
) -> list[Trace | None]:
    """The reference, and the pair in float64, of the float64 recordings of both producers.

    One recording of the baseline's producer has both roles. Of two, the reference is the one of the
    candidate's branch. If neither is, the first is the reference.
    """
    if len(candidates) > 1:
        raise _too_many(candidates)
    other = candidates[0] if candidates else None
    if len(baselines) < 2:
        exact = baselines[0] if baselines else None
        return [exact, exact, other]
    wanted = [each.manifest.get("branch") if each else None for each in (candidate, other)]
    if len(baselines) > 2 or not all(trace.manifest.get("branch") for trace in baselines):
        raise _too_many(baselines)
    orders = [list(baselines), list(baselines[::-1])]
    best = max(
        orders,
        key=lambda pair: [
            _common(t.manifest["branch"], w) for t, w in zip(pair, wanted, strict=True)
        ],
    )
    return [*best, other]


def _common(branch: Branch, other: Branch) -> int:
    """The number of modes in which two recordings chose alike."""
    return sum(branch_of(branch, mode) == branch_of(other, mode) for mode in MODES)


def _too_many(traces: Sequence[Trace]) -> ParityError:
    return ParityError(f"{traces[0].path} and {traces[1].path}: two float64 references; give one")


def _pairs(traces: Sequence[Trace]) -> list[Pair]:
    """The pair to compare and, if there is one, the pair in float64."""
    if len(traces) < 2:
        raise ParityError(f"compare: expected two traces or more, found {len(traces)}")
    main, exact = Pair(list(traces[:2])), Pair([None, None])
    in_float64: tuple[list[Trace], list[Trace]] = ([], [])
    _refuse_pair(traces[:2], any(t.manifest.get("variant") for t in traces[2:]))
    precision = traces[0].manifest["precision"]
    for trace in traces[2:]:
        trace_precision, variant = trace.manifest["precision"], trace.manifest.get("variant")
        side = _side(trace, traces[:2], "variant" if variant else "reference")
        if variant and trace_precision in (precision, "float64"):
            (main if trace_precision == precision else exact).variants[side].append(trace)
        elif variant or trace_precision != "float64" or precision == "float64":
            raise ParityError(
                f"{trace.path}: {trace.label} has no part in comparing {traces[0].label} with "
                f"{traces[1].label}; expected a float64 reference, or variants in {precision}"
            )
        else:
            in_float64[side].append(trace)
    main.reference, *exact.traces = _float64_roles(traces[1], *in_float64)
    if not exact.traces[1] and not any(exact.variants):
        return [main]
    for trace, exact_trace in zip(traces[:2], exact.traces, strict=True):
        if not exact_trace:
            raise ParityError(
                f"compare: a float64 trace of {trace.producer('name')} is missing; give one to "
                "compare in float64 as well"
            )
    return [main, exact]

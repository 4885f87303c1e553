"""Where two implementations begin to differ: one finding per case and pair.

    findings = locate(rows)                     # rows of parity/comparison/judge.py
    find_causes(findings[0], baseline, candidate)    # traces of the finding's stage and precision

Many taps differ after one fault. `PHASES` ranks the evidence:

1. the inputs;
2. isolated operations, each fed with the baseline's inputs: one that differs has the fault;
3. chained stages: the first tap that differs, in the order of computation, shows the place. In a
   backward pass, the order of computation is reversed.

Float64 is looked at before float32, because rounding in float32 can hide a fault.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.cases.known import model_of_case
from parity.comparison.trace import Trace
from parity.comparison.verdict import Row
from parity.diagnose.finding import Direction, Finding
from parity.suite.causes import explain
from parity.suite.causes.context import context_of
from transfg_core.models.layout import maker_of, taps_of
from transfg_core.models.rows import TapSpec


class Phase(NamedTuple):
    """Stages whose taps are one sequence, and the direction of this sequence. `by_tap`: cases with
    taps inside blocks place a fault more exactly."""

    direction: Direction
    stages: tuple[str, ...]
    by_tap: bool = False


LOSSES = "isolated losses"
PHASES = (
    Phase("data", ("loading", "parameters", "data", "learning rates")),
    Phase("forward", ("isolated forward", "isolated selection", LOSSES), by_tap=True),
    Phase("backward", ("isolated backward", "isolated gradients"), by_tap=True),
    Phase("forward", ("forward", "selection", "losses"), by_tap=True),
    Phase("backward", ("backward", "gradients"), by_tap=True),
    Phase("forward", ("rollout",)),
    Phase("backward", ("saliency", "grad_cam")),
    Phase("update", ("one update",)),
    Phase("update", ("updates",)),
    Phase("forward", ("evaluation", "predictions", "dropout", "contract")),
    Phase("update", ("cross-load",)),
)
LISTED = 6  # the most taps that a finding's text names
# Noise of float64 between two frameworks: causes are computed from the inputs of a float32 pass
GIVEN = 1e-8
# Order of an update's taps: each before the taps that are computed from it. A trace has another.
STEP_ORDER = ("grad_norm", "clipped_norm", "loss", "lr", "momentum/", "exp_avg", "step/", "ema/")


def locate(rows: Sequence[Row]) -> list[Finding]:
    """One finding for each case and pair with a `different` row, the strongest evidence first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.case, row.pair), []).append(row)
    ranked = []
    for number, group in enumerate(groups.values()):
        differing = [row for row in group if row.verdict == "different"]
        if not differing:
            continue
        phase, precision = min((phase_of(row.stage), -digits(row)) for row in differing)
        order = {row.tap: place for place, row in enumerate(group) if forward(row)}
        first = [r for r in differing if (phase_of(r.stage), -digits(r)) == (phase, precision)]
        first.sort(key=lambda row: rank(row, order, len(group)))
        inside = any("." in row.tap for row in group if forward(row))
        coarse = not inside and PHASES[min(phase, len(PHASES) - 1)].by_tap
        ranked.append((phase, precision, coarse, number, finding(first)))
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1])]


def phase_of(stage: str) -> int:
    """The place of a stage in PHASES; an unknown stage comes last."""
    return next((n for n, phase in enumerate(PHASES) if stage in phase.stages), len(PHASES))


def digits(row: Row) -> int:
    """A number that is higher for a more exact precision."""
    return {"float64": 2, "float32": 1}.get(row.precision, 0)


def forward(row: Row) -> bool:
    """Whether the row is an activation: then its place in the trace is its place in the pass."""
    return row.stage in (*PHASES[1].stages, *PHASES[3].stages)


def rank(row: Row, order: Mapping[str, int], end: int) -> tuple[int, int]:
    """The sort key of rows of one phase; equal ranks keep the order of the trace."""
    if phase_of(row.stage) >= len(PHASES):
        return (0, 0)
    direction = PHASES[phase_of(row.stage)].direction
    if direction == "update":
        return (next((n for n, name in enumerate(STEP_ORDER) if row.tap.startswith(name)), 0), 0)
    if direction != "backward":
        return (int(row.tap == "loss"), 0)  # the sum after its parts
    if row.tap.endswith("_norm") and "/" not in row.tap:
        return (1, 0)  # after all gradients
    model = model_of_case(row.case)
    return (0, -position(row.tap, order, end, taps_of(model) if model else {}))


def position(tap: str, order: Mapping[str, int], end: int, taps: Mapping[str, TapSpec]) -> int:
    """The place of an activation's or a parameter's gradient in the order of the forward pass."""
    prefix, _, name = tap.partition("/")
    if prefix == "grad":
        name = maker_of(name, taps)
    while name and name not in order:
        name = name.rpartition(".")[0]
    return order.get(name, end)


def finding(rows: Sequence[Row]) -> Finding:
    """The finding for rows of one phase, which are in order of computation."""
    first = rows[0]
    known = phase_of(first.stage) < len(PHASES)
    direction: Direction = PHASES[phase_of(first.stage)].direction if known else "forward"
    why = first.reason or f"error {first.error:.2g}, bound {first.bound:.2g}"
    text = f"{first.stage}/{first.tap} ({first.case}, {first.precision}): {why}"
    if len(rows) > 1:
        listed = ", ".join(row.tap for row in rows[1:LISTED])
        more = ", ..." if len(rows) > LISTED else ""
        text += f"; {len(rows) - 1} more differ there: {listed}{more}"
    return Finding(
        first.case, first.pair, first.precision, first.stage, first.tap, direction, (), text
    )


def find_causes(
    found: Finding, baseline: Trace, candidate: Trace, source: Trace | None = None
) -> Finding:
    """The finding with its likely causes, best first.

    Args:
        baseline: the trace that the candidate was judged against.
        candidate: a trace of the same kind and precision.
        source: the baseline's whole pass, which feeds isolated operations and holds the parameters.
    """
    a, b = (trace.taps.get(found.place) for trace in (baseline, candidate))
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return found
    same = baseline.producer("name") == candidate.producer("name")
    noise = None if same or found.precision != "float64" else GIVEN
    context = context_of(found, source or baseline, noise)
    if source and found.stage == LOSSES:  # a loss is the input of the next; it is not replayed
        context = replace(context, taps={**context.taps, **baseline.arrays(LOSSES)})
    causes = tuple((cause.code, cause.text) for cause in explain(found.tap, b, a, context))
    likely = f"; likely: {causes[0][1]}" if causes else ""
    return replace(found, causes=causes, text=found.text + likely)

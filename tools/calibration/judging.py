"""What each rule says of one recorded pair, as facts for a table."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from parity.api import compare_traces, explained
from parity.comparison.sketch import Array
from parity.comparison.verdict import Comparison, Evidence, Row
from parity.folder import compare_folder
from tools.calibration.design import Case
from tools.calibration.rules import RULES

OURS = "parity"
ALONE = "parity, two traces alone"
NEAR = "parity, float32 only"
LOADED = "parameters/"  # equal by construction
STEP = "one update/step/"


def judge_case(case: Case, folder: Path) -> dict[str, Any]:
    """The facts on one pair, from its recordings."""
    started = time.monotonic()
    comparison, _ = compare_folder(folder)
    result = explained(comparison)
    seconds = time.monotonic() - started
    main = main_pair(comparison)
    rows = comparison.rows
    near = [row for row in rows if row.precision == "float32"]
    pair = [main.baseline, main.candidate]
    alone = compare_traces(pair).rows
    facts = {
        OURS: from_rows(rows, case),
        NEAR: from_rows(near, case),
        ALONE: from_rows(alone, case),
    }
    facts |= {rule.name: by_rule(rule.differs, main, case) for rule in RULES}
    findings = [
        {
            "code": found.code,
            "kind": found.kind,
            "place": found.place,
            "text": found.text or "; ".join(text for _, text in found.causes),
            "explained": len(found.explained),
            "shown": found.shown_by,
        }
        for found in result.findings
    ]
    return {
        "case": asdict(case),
        "verdict": comparison.verdict,
        "rules": facts,
        "findings": findings,
        "placed": bool(findings) and any(fits(str(f["place"]), case) for f in findings[:1]),
        "open": [describe(row) for row in result.open],
        "bad": [describe(row) for row in rows if row.verdict in ("different", "less precise")][:40],
        "one_sided": [len(comparison.one_sided.baseline), len(comparison.one_sided.candidate)],
        "seconds": seconds,
    }


def main_pair(comparison: Comparison) -> Evidence:
    """The pair of whole passes in float32."""
    return next(
        pair
        for pair in comparison.pairs
        if pair.baseline.manifest.get("kind") == "pass"
        and pair.candidate.manifest["precision"] == "float32"
    )


def from_rows(rows: Sequence[Row], case: Case) -> dict[str, Any]:
    """Taps by verdict, and the first that is different."""
    counts = Counter(row.verdict for row in rows)
    first = next((row for row in rows if row.verdict == "different"), None)
    place = f"{first.stage}/{first.tap}" if first else ""
    return {
        "flagged": counts["different"],
        "taps": len(rows),
        "verdicts": dict(counts),
        "first": place,
        "placed": bool(first) and fits(place, case),
    }


def by_rule(
    differs: Callable[[Array, Array, Array | None], bool | None], main: Evidence, case: Case
) -> dict[str, Any]:
    """Taps that a rule flags, and the first of them."""
    flagged, taps, first = 0, 0, ""
    for name, baseline, candidate, reference in arrays_of(main):
        said = True if baseline.shape != candidate.shape else None
        said = differs(baseline, candidate, reference) if said is None else said
        if said is None:
            continue
        taps += 1
        flagged += said
        first = first or (name if said else "")
    placed = bool(first) and fits(first, case)
    return {"flagged": flagged, "taps": taps, "first": first, "placed": placed}


def arrays_of(main: Evidence) -> Iterator[tuple[str, Array, Array, Array | None]]:
    """The arrays that a rule judges, in data order: all float taps that both traces have.

    Instead of the step of an update, tools see the new weights.
    """
    reference = main.reference.taps if main.reference else {}
    for name, baseline in main.baseline.taps.items():
        candidate = main.candidate.taps.get(name)
        exact = reference.get(name)
        if not isinstance(baseline, np.ndarray) or not isinstance(candidate, np.ndarray):
            continue
        if baseline.dtype.kind != "f" or name.startswith(LOADED):
            continue
        true = exact.astype(np.float64) if isinstance(exact, np.ndarray) else None
        if name.startswith(STEP):
            start = main.baseline.taps[LOADED + name.removeprefix(STEP)]
            assert isinstance(start, np.ndarray)
            baseline, candidate = (
                x.astype(np.float32) for x in (start + baseline, start + candidate)
            )
            true = start + true if true is not None else None
        yield name, baseline, candidate, true


def fits(tap: str, case: Case) -> bool:
    """Whether a tap (`stage/tap`) is a place where the case's fault begins."""
    name = tap.partition("/")[2].removeprefix("d/").removeprefix("step/")
    return bool(case.place) and bool(re.match(rf"({case.place})(\.|#|$)", name))


def describe(row: Row) -> str:
    """A line on one row."""
    return (
        f"{row.precision} {row.stage}/{row.tap}: {row.verdict}, error {row.error:.2g}, bound "
        f"{row.bound:.2g}{f' ({row.reason})' if row.reason else ''}"
    )

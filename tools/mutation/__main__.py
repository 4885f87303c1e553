"""Does the suite catch faults? Plant one at a time, record it, judge it, look where it is placed.

    python -m tools.mutation.__main__                       # every entry of mutations.yaml
    python -m tools.mutation.__main__ --only 'gelu-*' --backend jittor
    python -m tools.mutation.__main__ --clean 10            # no fault planted: nothing may differ

Each entry of `mutations.yaml` is a substitution in a copy of the packages, which child processes
record. The mutated backend is judged against the clean reference backend, sharpest evidence first,
until something differs. A fault in the shared core or in both twins would not show between them, so
of those it is also told whether the published program's numbers or a claim gives them away.
"""

import argparse
import difflib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from parity.cases.case import CASES, Case
from parity.comparison.verdict import Row
from parity.diagnose.locate import locate, phase_of
from parity.suite.run import with_causes
from tools.mutation.false_positives import run_clean
from tools.mutation.mutants import MutantSuite, record_reference, run_steps, seen_alone
from tools.mutation.planting import (
    MUTATIONS,
    MutantFailed,
    Mutation,
    control,
    load_mutations,
    plant,
)
from transfg_core.backend import BACKENDS
from transfg_core.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant."""

    name: str
    twin: str
    caught: str  # yes, no, or error: the mutant does not run
    stages: tuple[str, ...] = ()  # all that differ, sharpest first
    place: str = ""
    case: str = ""
    precision: str = ""
    error: float = 0.0
    expected: tuple[str, ...] = ()
    placed: bool = False
    cause: str = ""
    expected_cause: str = ""
    named: bool | None = None  # whether the cause is the expected one; None if none is expected
    alone: bool | None = None  # of core and both: seen with no clean backend to compare with
    text: str = ""
    seconds: float = 0.0
    note: str = ""
    causes: tuple[tuple[str, str], ...] = field(default=())


def choose(patterns: Sequence[str], backend: str | None) -> list[Mutation]:
    """The mutants of these names or patterns; with `backend`, those that it records.

    Raises:
        UserError: one of the patterns fits none.
    """
    known = {one.name: one for one in load_mutations() if backend in (None, one.backend)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            (near,) = difflib.get_close_matches(pattern, known, n=1, cutoff=0.0)
            raise UserError(
                f"--only {pattern}: expected an entry of {MUTATIONS.name} that "
                f"{backend or 'some backend'} records, or a pattern of such; the nearest is {near}"
            )
    return [m for name, m in known.items() if any(fnmatchcase(name, one) for one in patterns)]


def try_mutation(
    mutation: Mutation, clean: Path, cases: Sequence[Case], whole: bool = False
) -> Outcome:
    """Plant, record, judge and locate one fault; with `whole`, every step whatever was found."""
    start = time.monotonic()
    outcome = Outcome(
        name=mutation.name,
        twin=mutation.twin,
        caught="no",
        expected=mutation.taps,
        expected_cause=mutation.cause,
        note=mutation.note,
    )
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        root, traces = Path(name) / "tree", Path(name) / "traces"
        plant(mutation, root)
        traces.mkdir()
        suite = MutantSuite(clean, cases, (), mutant=traces, backend=mutation.backend)
        try:
            rows = run_steps(suite, root, mutation.twin, whole)
            outcome = described(outcome, mutation, suite, rows)
            if mutation.twin in ("core", "both"):
                outcome = replace(outcome, alone=seen_alone(suite, root))
        except MutantFailed as error:
            outcome = replace(outcome, caught="error", place=f"error/{error}", text=str(error))
    placed = any(fnmatchcase(outcome.place, pattern) for pattern in mutation.taps)
    return replace(outcome, placed=placed, seconds=round(time.monotonic() - start, 1))


def check_control(backend: str, clean: Path) -> None:
    """Without a fault the harness must find nothing, or what it finds in mutants means nothing.

    Raises:
        UserError: a copy without a fault does not run, or differs.
    """
    outcome = try_mutation(control(backend), clean, CASES)
    print(f"{outcome.name}: caught {outcome.caught}, {outcome.seconds} s", flush=True)
    if outcome.caught != "no":
        raise UserError(
            f"{outcome.name}: expected that nothing differs where no fault is planted, found "
            f"{outcome.text or outcome.place}; mend the twins or the harness first"
        )


def described(
    outcome: Outcome, mutation: Mutation, suite: MutantSuite, rows: Sequence[Row]
) -> Outcome:
    """The outcome of a mutant that ran."""
    findings = locate(rows)
    if not findings:
        return outcome
    found = with_causes(findings[0], suite)
    differing = [row for row in rows if row.verdict == "different"]
    stages = sorted(dict.fromkeys(row.stage for row in differing), key=phase_of)
    here = (found.case, found.stage, found.tap, found.precision)
    errors = [r.error for r in differing if (r.case, r.stage, r.tap, r.precision) == here]
    causes = [f"{code}: {text}" for code, text in found.causes]
    return replace(
        outcome,
        caught="yes",
        stages=tuple(stages),
        place=found.place,
        case=found.case,
        precision=found.precision,
        error=errors[0],
        cause=causes[0] if causes else "",
        causes=found.causes,
        named=any(mutation.cause in cause for cause in causes) if mutation.cause else None,
        text=found.text,
    )


def words(value: bool | None) -> str:
    """For a table."""
    return "" if value is None else "yes" if value else "no"


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown, and a summary."""
    lines = [
        "| mutant | twin | caught | placed at | case | error | placed right | cause | seen alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        place = one.place.replace("|", "/")[:90]
        cells = (
            one.name,
            one.twin,
            one.caught,
            f"`{place}`" if place else "",
            f"{one.case} {one.precision}".strip(),
            f"{one.error:.1e}" if one.error else "",
            "yes" if one.placed else f"no: expected {', '.join(one.expected)}",
            one.cause.replace("|", "/") + (" (not the expected one)" * (one.named is False)),
            words(one.alone),
        )
        lines.append(f"| {' | '.join(cells)} |")
    caught = sum(one.caught == "yes" for one in outcomes)
    broken = sum(one.caught == "error" for one in outcomes)
    placed = sum(one.placed for one in outcomes)
    known = [one.named for one in outcomes if one.named is not None]
    lines += [
        "",
        f"{len(outcomes)} faults: {caught} caught by a verdict, {broken} that keep the backend "
        f"from running, {placed} placed as expected; of {len(known)} with a known cause "
        f"{sum(known)} were named.",
    ]
    return "\n".join(lines) + "\n"


def report(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write mutation.json and mutation.md."""
    records = [asdict(one) for one in outcomes]
    text = json.dumps(records, indent=1, ensure_ascii=False)
    (out / "mutation.json").write_text(text, encoding="utf-8")
    (out / "mutation.md").write_text(table(outcomes), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every fault was caught by a verdict, or nothing clean differed; 1: otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutation.__main__", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names or patterns of mutants")
    parser.add_argument("--backend", choices=BACKENDS, help="mutants that this backend records")
    parser.add_argument("--out", type=Path, default=Path("build/mutation"), metavar="FOLDER")
    parser.add_argument("--clean", type=int, metavar="SEEDS", help="no mutants: false alarms")
    parser.add_argument("--whole", action="store_true", help="all steps, not until one differs")
    parser.add_argument("--keep-reference", action="store_true", help="do not record it anew")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    clean = (asked.out / "clean").resolve()
    try:
        chosen = choose(asked.only or ["*"], asked.backend)
        if not (asked.keep_reference and clean.exists()):
            record_reference(clean, CASES)
        if asked.clean is not None:
            return 1 if run_clean(asked.out.resolve(), asked.clean, CASES) else 0
        for backend in dict.fromkeys(one.backend for one in chosen):
            check_control(backend, clean)
        outcomes = []
        for mutation in chosen:
            outcomes.append(try_mutation(mutation, clean, CASES, asked.whole))
            one = outcomes[-1]
            print(f"{one.name}: {one.caught}, {one.seconds} s; {one.text}", flush=True)
            report(outcomes, asked.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(outcomes))
    # a mutant that does not run is no proof of the suite, unless just that was expected
    return 0 if all(one.caught == "yes" or one.placed for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

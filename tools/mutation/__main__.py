"""Does the suite catch faults? Plant one at a time, record it, judge it, check where it is placed.

    python -m tools.mutation                       # every entry of mutations.yaml
    python -m tools.mutation --only 'gelu-*' --backend jittor
    python -m tools.mutation --only 'average-*' --case finetune    # other cases are left out
    python -m tools.mutation --clean 10            # no fault planted: nothing may differ

Each entry of `mutations.yaml` is a substitution in a copy of the packages. Child processes record
that copy. The mutated backend is judged against the clean baseline, strongest evidence first, until
something differs. The suite compares the twins, so it cannot see a fault of the shared core or of
both twins. For these faults the table also shows whether the published program's numbers or a claim
reveal them without a clean backend.
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
from parity.errors import ParityError
from parity.suite.locate import locate, phase_of
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
    """The outcome of one mutant."""

    name: str
    twin: str
    caught: str  # yes, no, or error: the mutant does not run
    stages: tuple[str, ...] = ()  # all stages that differ, strongest evidence first
    place: str = ""
    case: str = ""
    precision: str = ""
    error: float = 0.0
    expected: tuple[str, ...] = ()
    placed: bool = False
    cause: str = ""
    expected_cause: str = ""
    named: bool | None = None  # whether the expected cause is among the causes; None if none is
    alone: bool | None = None  # faults in core or both: caught without a clean backend
    text: str = ""
    seconds: float = 0.0
    note: str = ""
    causes: tuple[tuple[str, str], ...] = field(default=())


def choose(patterns: Sequence[str], backend: str | None) -> list[Mutation]:
    """The mutants that match these names or patterns; with `backend`, only those that it records.

    Raises:
        UserError: a pattern matches no mutant.
    """
    known = {each.name: each for each in load_mutations() if backend in (None, each.backend)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            (near,) = difflib.get_close_matches(pattern, known, n=1, cutoff=0.0)
            raise UserError(
                f"--only {pattern}: expected an entry of {MUTATIONS.name} that "
                f"{backend or 'a backend'} records, or a pattern; the nearest is {near}"
            )
    return [m for name, m in known.items() if any(fnmatchcase(name, each) for each in patterns)]


def try_mutation(
    mutation: Mutation, clean: Path, cases: Sequence[Case], whole: bool = False
) -> Outcome:
    """Plant, record, judge and locate one fault; with `whole`, take every step in any case."""
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
        suite = MutantSuite(
            clean,
            cases,
            (),
            mutant=traces,
            backend=mutation.backend,
            threads=mutation.threads,
        )
        try:
            rows = run_steps(suite, root, mutation.twin, whole)
            outcome = described(outcome, mutation, suite, rows)
            if mutation.twin in ("core", "both"):
                outcome = replace(outcome, alone=seen_alone(suite, root))
        except MutantFailed as error:
            outcome = replace(outcome, caught="error", place=f"error/{error}", text=str(error))
    placed = any(fnmatchcase(outcome.place, pattern) for pattern in mutation.taps)
    return replace(outcome, placed=placed, seconds=round(time.monotonic() - start, 1))


def check_control(backend: str, threads: int, clean: Path, cases: Sequence[Case]) -> None:
    """Check that this tool finds nothing without a fault; else its results prove nothing.

    Raises:
        UserError: a copy without a fault does not run, or differs.
    """
    outcome = try_mutation(control(backend, threads), clean, cases)
    print(f"{outcome.name}: caught {outcome.caught}, {outcome.seconds} s", flush=True)
    if outcome.caught != "no":
        raise UserError(
            f"{outcome.name}: expected the twins to agree before a fault is planted, found "
            f"{outcome.text or outcome.place}; repair the twins or this tool, then run it again"
        )


def described(
    outcome: Outcome, mutation: Mutation, suite: MutantSuite, rows: Sequence[Row]
) -> Outcome:
    """The outcome of a mutant that ran, from the rows of its verdicts."""
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
    """The cell of a table."""
    return "" if value is None else "yes" if value else "no"


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown, and a summary."""
    lines = [
        "| mutant | twin | caught | placed at | case | error | placed right | cause | alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        place = outcome.place.replace("|", "/")[:90]
        unexpected = " (not the expected one)" * (outcome.named is False)
        cells = (
            outcome.name,
            outcome.twin,
            outcome.caught,
            f"`{place}`" if place else "",
            f"{outcome.case} {outcome.precision}".strip(),
            f"{outcome.error:.1e}" if outcome.error else "",
            "yes" if outcome.placed else f"no: expected {', '.join(outcome.expected)}",
            outcome.cause.replace("|", "/") + unexpected,
            words(outcome.alone),
        )
        lines.append(f"| {' | '.join(cells)} |")
    caught = sum(outcome.caught == "yes" for outcome in outcomes)
    broken = sum(outcome.caught == "error" for outcome in outcomes)
    placed = sum(outcome.placed for outcome in outcomes)
    known = [outcome.named for outcome in outcomes if outcome.named is not None]
    lines += [
        "",
        f"{len(outcomes)} faults: {caught} caught by a verdict, {broken} that keep the backend "
        f"from running, {placed} placed as expected; of {len(known)} with a known cause "
        f"{sum(known)} were named.",
    ]
    return "\n".join(lines) + "\n"


def report(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write mutation.json and mutation.md."""
    records = [asdict(outcome) for outcome in outcomes]
    text = json.dumps(records, indent=1, ensure_ascii=False)
    (out / "mutation.json").write_text(text, encoding="utf-8")
    (out / "mutation.md").write_text(table(outcomes), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0: every fault was caught by a verdict, or nothing clean differed; 1: otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names or patterns of mutants")
    names = [case.name for case in CASES]
    parser.add_argument("--case", nargs="+", choices=names, default=names, help="cases to record")
    parser.add_argument("--backend", choices=BACKENDS, help="mutants of this backend")
    parser.add_argument("--out", type=Path, default=Path("build/mutation"), metavar="FOLDER")
    parser.add_argument("--clean", type=int, metavar="SEEDS", help="false alarms without a fault")
    parser.add_argument("--whole", action="store_true", help="all steps, also after a difference")
    parser.add_argument("--keep-reference", action="store_true", help="use the one recorded before")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    clean = (options.out / "clean").resolve()
    cases = [case for case in CASES if case.name in options.case]
    try:
        chosen = choose(options.only or ["*"], options.backend)
        if not (options.keep_reference and clean.exists()):
            record_reference(clean, cases)
        if options.clean is not None:
            return 1 if run_clean(options.out.resolve(), options.clean, cases) else 0
        for backend, threads in dict.fromkeys((each.backend, each.threads) for each in chosen):
            check_control(backend, threads, clean, cases)
        outcomes = []
        for mutation in chosen:
            outcome = try_mutation(mutation, clean, cases, options.whole)
            outcomes.append(outcome)
            caught, seconds = outcome.caught, outcome.seconds
            print(f"{outcome.name}: {caught}, {seconds} s; {outcome.text}", flush=True)
            report(outcomes, options.out)
    except (UserError, ParityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(outcomes))
    # a mutant that does not run proves nothing about the suite, unless exactly that was expected
    return 0 if all(outcome.caught == "yes" or outcome.placed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

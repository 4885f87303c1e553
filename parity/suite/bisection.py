"""Which operations differ: each of one backend's is fed with the other's inputs and gradients.

What two backends compute one after the other drifts apart from the first fault on. Here every piece
between two taps starts from the same numbers, forward and backward, so that a piece which differs
has the fault in itself (`record_pieces`). In float64 first, where nothing else can differ.
"""

from pathlib import Path

from parity.cases.case import BY_NAME
from parity.compare.verdict import EXIT_CODES, worst
from parity.suite.jobs import FIRST, Job
from parity.suite.plan import (
    CANDIDATE,
    Ladder,
    exact_first_jobs,
    exact_jobs,
    first_jobs,
    reference_jobs,
    run_children,
    start_child,
)
from parity.suite.run import clear, judge_exact, judge_pieces, report
from transfg_core.errors import UserError


def bisection_jobs(ladder: Ladder) -> list[list[Job]]:
    """What each process records: the reference backend, then the candidate, in either precision."""
    source = ladder.job(FIRST, ladder.cases[0]).out
    exact = [job for job in exact_first_jobs(ladder) if job.kind == "pieces"]
    return [
        reference_jobs(ladder),
        first_jobs(ladder),
        exact,
        [ladder.job(CANDIDATE, ladder.cases[0], "pieces", source=source)],
        [job for job in exact_jobs(ladder) if job.kind == "pieces"] if ladder.exact else [],
    ]


def run_bisection(folder: Path, case: str, seed: int | None = None, draw: str = "noise") -> int:
    """Record, judge and explain the pieces of one case; exit code 0, 1 or 2.

    Raises:
        UserError: there is no such case, or a backend could not be recorded.
    """
    if case not in BY_NAME:
        raise UserError(f"--case {case}: expected one of {', '.join(BY_NAME)}")
    small = BY_NAME[case].sketch_above is None
    ladder = Ladder(
        folder, [BY_NAME[case]], (), exact=small, seed=seed, draw=draw, fine=small, around=False
    )
    clear(folder)
    for jobs in bisection_jobs(ladder):
        run_children(start_child(jobs))
    rows = judge_exact(ladder, case, kinds=("pieces",)) if ladder.exact else []
    rows += judge_pieces(ladder, case)
    report(ladder, rows)
    verdict = worst([row.verdict for row in rows])
    if verdict == "equivalent":
        print("no operation differs: where runs part, look at data, updates and schedule")
    return EXIT_CODES[verdict]

"""Which operations differ: each of one backend's is fed with the other's inputs and gradients.

What two backends compute one after the other drifts apart from the first fault on. Here every piece
between two taps starts from the same numbers, forward and backward, so that a piece which differs
has the fault in itself (`record_isolated`). In float64 first, where nothing else can differ.
"""

from pathlib import Path

from parity.cases.case import BY_NAME
from parity.comparison.verdict import EXIT_CODES, worst
from parity.suite.jobs import BASELINE, Job
from parity.suite.plan import (
    CANDIDATE,
    Suite,
    baseline_jobs,
    float64_baseline_jobs,
    float64_jobs,
    reference_jobs,
    run_children,
    start_child,
)
from parity.suite.run import clear, judge_float64, judge_isolated, report
from transfg_core.errors import UserError


def bisection_jobs(suite: Suite) -> list[list[Job]]:
    """What each process records: the reference backend, then the candidate, in either precision."""
    source = suite.job(BASELINE, suite.cases[0]).out
    exact = [job for job in float64_baseline_jobs(suite) if job.kind == "isolated"]
    return [
        reference_jobs(suite),
        baseline_jobs(suite),
        exact,
        [suite.job(CANDIDATE, suite.cases[0], "isolated", source=source)],
        [job for job in float64_jobs(suite) if job.kind == "isolated"] if suite.float64 else [],
    ]


def run_bisection(folder: Path, case: str, seed: int | None = None, draw: str = "noise") -> int:
    """Record, judge and explain the pieces of one case; exit code 0, 1 or 2.

    Raises:
        UserError: there is no such case, or a backend could not be recorded.
    """
    if case not in BY_NAME:
        raise UserError(f"--case {case}: expected one of {', '.join(BY_NAME)}")
    small = BY_NAME[case].sketch_above is None
    suite = Suite(
        folder, [BY_NAME[case]], (), float64=small, seed=seed, draw=draw, fine=small, checks=False
    )
    clear(folder)
    for jobs in bisection_jobs(suite):
        run_children(start_child(jobs))
    rows = judge_float64(suite, case, kinds=("isolated",)) if suite.float64 else []
    rows += judge_isolated(suite, case)
    report(suite, rows)
    verdict = worst([row.verdict for row in rows])
    if verdict == "equivalent":
        print("no operation differs: where runs part, look at data, updates and schedule")
    return EXIT_CODES[verdict]

"""Find the operations that differ: each is fed with the baseline's inputs and gradients.

In a whole pass, everything after the first fault differs. Here the operations are isolated: each
starts from the same numbers in both backends, forward and backward. So the operation that differs
has the fault itself (`record_isolated`). Float64 comes first, since rounding is negligible there.
"""

from pathlib import Path

from parity.cases.case import BY_NAME
from parity.comparison.settling import settle_precision
from parity.comparison.verdict import EXIT_CODES, worst
from parity.suite.jobs import Job
from parity.suite.plan import (
    Suite,
    baseline_jobs,
    candidate_jobs,
    float64_baseline_jobs,
    float64_jobs,
    reference_jobs,
    run_children,
    start_child,
)
from parity.suite.run import clear, judge_float64, judge_isolated, report
from transfg_core.errors import UserError


def bisection_jobs(suite: Suite) -> list[list[Job]]:
    """The jobs of each process: first the baseline's, then the candidate's, in both precisions."""
    isolated = [job for job in float64_baseline_jobs(suite) if job.kind == "isolated"]
    return [
        reference_jobs(suite),
        baseline_jobs(suite),
        isolated,
        [job for job in candidate_jobs(suite) if job.kind == "isolated"],
        [job for job in float64_jobs(suite) if job.kind == "isolated"] if suite.float64 else [],
    ]


def run_bisection(folder: Path, case: str, seed: int | None = None, draw: str = "noise") -> int:
    """Record, judge and explain the isolated operations of one case; exit code 0, 1 or 2.

    Raises:
        UserError: the case is unknown, or a backend could not be recorded.
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
    rows = settle_precision([*rows, *judge_isolated(suite, case)])
    report(suite, rows)
    verdict = worst([row.verdict for row in rows])
    if verdict == "equivalent":
        print("no operation differs; if runs still differ, look at data, updates and schedule")
    return EXIT_CODES[verdict]

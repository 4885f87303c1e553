"""The suite of a mutant: its recordings, step by step, and their verdicts.

The clean baseline is recorded once. A mutated backend takes the candidate's place.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parity.cases.case import Case
from parity.cases.golden import GOLDENS, Golden
from parity.comparison.judge import judge
from parity.comparison.trace import Trace, read_trace
from parity.comparison.verdict import Evidence, Row
from parity.suite import plan
from parity.suite import run as suite_run
from parity.suite.checks import CHECKS
from parity.suite.jobs import BASELINE, Job
from parity.suite.plan import CANDIDATE, Suite
from parity.suite.siblings import SIBLINGS
from tools.mutation.planting import THREADS, record_copy
from transfg_core.checkpoints.export import convert

CHECKS_KIND = "checks"


@cache
def read_once(path: Path) -> Trace:
    """Read a trace that does not change."""
    return read_trace(path)


@dataclass
class MutantSuite(Suite):
    """A suite with a clean baseline; a mutated backend in another folder is the candidate."""

    mutant: Path = Path()
    backend: str = BASELINE
    threads: int = THREADS  # of the mutated backend

    def path(self, backend: str, case: str, *words: str | None) -> Path:
        """The file of a trace; the candidate's traces lie in another folder."""
        path = super().path(backend, case, *words)
        return self.mutant / path.name if backend == CANDIDATE else path

    def job(
        self, backend: str, case: Case | Golden, kind: str = "case", **fields: str | None
    ) -> Job:
        """The job of a suite; the candidate is the mutated backend."""
        job = super().job(backend, case, kind, **fields)
        return replace(job, backend=self.backend) if backend == CANDIDATE else job

    def checks_job(self, backend: str, precision: str = "float32") -> Job:
        """The checks, with the run that the baseline saved."""
        job = super().checks_job(backend, precision)
        source = str(self.folder / f"golden-{GOLDENS[0].name}.safetensors")
        backend = self.backend if backend == CANDIDATE else backend
        return replace(job, source=source, backend=backend)

    def trace(self, backend: str, case: str, kind: str = "case", *words: str) -> Trace:
        """A recorded trace; the baseline's traces are read once."""
        path = self.path(backend, case, kind, *(words or (self.precision,)))
        return read_trace(path) if backend == CANDIDATE else read_once(path)


def record_reference(folder: Path, cases: Sequence[Case]) -> None:
    """Record the clean baseline with its variants, and convert the published weights."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "traces").mkdir(parents=True)
    for golden in GOLDENS:
        convert(str(golden.checkpoint), folder / f"golden-{golden.name}.safetensors")
    suite = MutantSuite(folder, cases, ())
    groups = [
        plan.reference_jobs(suite),
        plan.baseline_jobs(suite) + plan.variant_jobs(suite, BASELINE),
        plan.float64_baseline_jobs(suite),
    ]
    # as many threads as most mutants use: the order of sums depends on their number
    for jobs in groups:
        plan.run_children(plan.start_child(jobs, threads=THREADS))


class Step(NamedTuple):
    """Kinds of recordings, and their cases: with taps inside blocks, without, or all (None)."""

    kinds: tuple[str, ...]
    fine: bool | None = None


# Sharpest evidence first. The next step is taken only if nothing differs yet.
ISOLATED = (Step(("isolated",), True), Step(("isolated",), False))
WHOLE = Step(("case", "continue"))
CHECKS_STEP = Step((CHECKS_KIND,))


def steps_for(twin: str) -> tuple[Step, ...]:
    """The steps in their order; for a fault in the core, the checks of the inputs come first."""
    return (CHECKS_STEP, *ISOLATED, WHOLE) if twin == "core" else (*ISOLATED, WHOLE, CHECKS_STEP)


def run_steps(suite: MutantSuite, root: Path, twin: str, whole: bool) -> list[Row]:
    """Record and judge step by step until something differs; with `whole`, take all steps.

    Raises:
        MutantFailed: the mutant does not run.
    """
    rows: list[Row] = []
    for step in steps_for(twin):
        cases = [case for case in suite.cases if step.fine in (None, case.fine)]
        record_copy(root, mutant_jobs(suite, step, cases), suite.threads)
        if step is CHECKS_STEP:
            rows += suite_run.judge_checks(suite)
        elif step is WHOLE:
            rows = [row for row in rows if not row.stage.startswith("isolated")]
            rows += [row for case in cases for row in judge_whole(suite, case)]
        else:
            for case in cases:
                rows += suite_run.judge_isolated(suite, case.name)
                rows += suite_run.judge_float64(suite, case.name, ("isolated",))
        if not whole and any(row.verdict == "different" for row in rows):
            break
    return rows


def mutant_jobs(suite: MutantSuite, step: Step, cases: Sequence[Case]) -> list[Job]:
    """One step, in float64 and float32; `continue` starts from the baseline's state."""
    if step is CHECKS_STEP:
        return [suite.checks_job(CANDIDATE)]
    jobs = []
    for case in cases:
        source = suite.job(BASELINE, case).out
        for kind in step.kinds:
            if kind == "continue" and not case.continued:
                continue  # it saves no state to continue from
            more = {} if kind == "case" else {"source": source}
            if kind != "continue":
                jobs.append(suite.job(CANDIDATE, case, kind, precision="float64", **more))
            jobs.append(suite.job(CANDIDATE, case, kind, precision="float32", **more))
    return jobs


def published_jobs(suite: Suite) -> list[Job]:
    """Jobs of the published program's cases; the mutant chooses its own part indices."""
    jobs = [
        suite.job(CANDIDATE, golden, precision=precision)
        for golden in GOLDENS
        for precision in ("float64", "float32")
    ]
    return [replace(job, force=None) for job in jobs]


def judge_whole(suite: Suite, case: Case) -> list[Row]:
    """Rows as the suite judges a candidate, with updates from the baseline's state."""
    return suite_run.judge_case(suite, case.name, (CANDIDATE,) if case.continued else ())


def judge_published(suite: Suite) -> list[Row]:
    """The published program against the mutant."""
    rows = []
    for golden in GOLDENS:
        name = f"golden-{golden.name}"
        mutant = suite.trace(CANDIDATE, name)
        published = suite_run.published_trace(golden, mutant)
        reference = suite.trace(CANDIDATE, name, "case", "float64")
        evidence = Evidence(mutant, published, reference, siblings=SIBLINGS)
        rows += judge(evidence, only=list(published.taps))
    return rows


def seen_alone(suite: MutantSuite, root: Path) -> bool:
    """Whether a fault shows without a clean backend: the published program's numbers differ, or a
    claim of the checks is false."""
    jobs = [*published_jobs(suite), suite.checks_job(CANDIDATE)]
    record_copy(root, jobs, suite.threads)
    checks = suite.trace(CANDIDATE, CHECKS.name, CHECKS_KIND)
    arrays = [tap for tap in checks.taps.values() if isinstance(tap, np.ndarray)]
    claims_hold = all(tap.all() for tap in arrays if tap.dtype.kind == "b")
    rows = judge_published(suite)
    return any(row.verdict == "different" for row in rows) or not claims_hold

"""The plan of a suite: what is recorded, by which processes and into which files."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from parity.cases.case import BY_NAME, CASES, Case
from parity.cases.golden import GOLDENS, Golden
from parity.comparison.trace import Trace, read_trace
from parity.suite.checks import CHECKS, exported
from parity.suite.jobs import BASELINE, Job, as_argument
from transfg_core.errors import UserError
from transfg_core.machine import child_environment

CANDIDATE = "jittor"  # the backend that is judged against BASELINE
VARIANTS = {
    BASELINE: ("ulp:1", "symmetry:1", "ulp:2", "symmetry:2"),
    CANDIDATE: ("ulp:1", "symmetry:1"),
}
# of isolated operations: the baseline's in both precisions, the candidate's in float32
ISOLATED_VARIANTS = {
    BASELINE: ("symmetry:1", "symmetry:2", "symmetry:3"),
    CANDIDATE: ("symmetry:1", "symmetry:2"),
}
# of the baseline in float64, by kind of trace
FLOAT64_VARIANTS = {
    "case": ("symmetry:1", "symmetry:2", "symmetry:3", "ulp:1", "ulp:2", "ulp:3"),
    "isolated": ISOLATED_VARIANTS[BASELINE],
}
EXPORTED_VARIANTS = ("ulp:1", "symmetry:1")  # of both backends' evaluations of exported models
RUN = "run.safetensors"  # the checkpoint that both backends load
PAIR = f"{CANDIDATE} : {BASELINE}"


@dataclass
class Suite:
    """The traces of one run, in a folder.

    Raises:
        UserError: a case cannot be recorded (see `Job.subject`).
    """

    folder: Path
    cases: Sequence[Case] = CASES
    goldens: Sequence[Golden] = GOLDENS
    precision: str = "float32"
    float64: bool = True  # whether the candidate is recorded in float64 as well
    whole: bool = True  # compare whole passes and updates, not only isolated operations
    seed: int | None = None
    draw: str = "noise"
    fine: bool = False  # record taps inside blocks in every case
    checks: bool = True  # whether the checks are recorded as well
    onnx: bool = False  # whether exported models are checked as well

    def __post_init__(self) -> None:
        for case in self.cases:
            self.job(BASELINE, case).subject()  # raises here, not in a child process

    @property
    def everything(self) -> list[Case | Golden]:
        """The project's own cases, then those of the published program."""
        return [*self.cases, *self.goldens]

    def path(self, backend: str, case: str, *words: str | None) -> Path:
        """The file of a trace."""
        name = "-".join(word for word in (case, backend, *words) if word)
        return self.folder / "traces" / f"{name.replace(':', '')}.npz"

    def job(
        self, backend: str, case: Case | Golden, kind: str = "case", **fields: str | None
    ) -> Job:
        """One recording of this suite, with the part indices of the float64 reference."""
        precision = fields.get("precision") or self.precision
        variant = fields.get("variant")
        golden = isinstance(case, Golden)
        name = f"golden-{case.name}" if golden else case.name
        reference = self.path(BASELINE, name, "case", "float64")
        out = self.path(backend, name, kind, precision, variant)
        return Job(
            backend=backend,
            case=name,
            out=str(out),
            kind=kind,
            precision=precision,
            variant=variant,
            source=fields.get("source"),
            force=None if out == reference else str(reference),
            weights=str(self.folder / f"{name}.safetensors") if golden else None,
            seed=None if golden else self.seed,
            draw="noise" if golden else self.draw,
            fine=self.fine,
        )

    @property
    def exported(self) -> list[Case]:
        """The cases whose models are written as ONNX."""
        return [BY_NAME[name] for name in exported.CASES] if self.onnx else []

    def checks_job(self, backend: str, precision: str = "float32") -> Job:
        """The checks of one backend: loading, data, rates, predictions, dropout, contract."""
        name = CHECKS.name
        return Job(
            backend=backend,
            case=name,
            out=str(self.path(backend, name, "checks", precision)),
            kind="checks",
            precision=precision,
            source=str(self.folder / "golden-nonoverlap.safetensors") if self.goldens else None,
            run=str(self.folder / RUN),
        )

    def trace(self, backend: str, case: str, kind: str = "case", *words: str) -> Trace:
        """A recorded trace."""
        return read_trace(self.path(backend, case, kind, *(words or (self.precision,))))

    def variants(self, backend: str, case: str, kind: str = "case") -> list[Trace]:
        """The recorded variants of a case from one backend."""
        names = VARIANTS if kind == "case" else ISOLATED_VARIANTS
        return [
            self.trace(backend, case, kind, self.precision, variant)
            for variant in names[backend]
            if self.path(backend, case, kind, self.precision, variant).exists()
        ]


def reference_jobs(suite: Suite) -> list[Job]:
    """The reference: the baseline in float64."""
    jobs = [suite.job(BASELINE, case, precision="float64") for case in suite.everything]
    jobs += exported_jobs(suite, BASELINE, "float64", (None,))
    return [*jobs, suite.checks_job(BASELINE, "float64")] if suite.checks else jobs


def baseline_jobs(suite: Suite) -> list[Job]:
    """The baseline in the precision that is compared: whole passes and isolated operations."""
    jobs = []
    for case in suite.everything:
        jobs.append(suite.job(BASELINE, case))
        if isinstance(case, Case):
            variants = ISOLATED_VARIANTS[BASELINE]
            jobs += isolated_jobs(suite, BASELINE, case, suite.precision, variants)
    jobs += exported_jobs(suite, BASELINE, suite.precision, (None, *EXPORTED_VARIANTS))
    return [*jobs, suite.checks_job(BASELINE)] if suite.checks else jobs


def isolated_jobs(
    suite: Suite, backend: str, case: Case, precision: str, variants: Sequence[str]
) -> list[Job]:
    """Isolated operations, fed from the baseline's trace in the compared precision."""
    source = suite.job(BASELINE, case).out
    return [
        suite.job(backend, case, "isolated", precision=precision, variant=variant, source=source)
        for variant in (None, *variants)
    ]


def exported_jobs(
    suite: Suite, backend: str, precision: str, variants: Sequence[str | None]
) -> list[Job]:
    """Evaluations of the cases whose models are exported; the baseline writes their ONNX files."""
    return [
        suite.job(backend, case, "exported", precision=precision, variant=variant)
        for case in suite.exported
        for variant in variants
    ]


def variant_jobs(suite: Suite, backend: str) -> list[Job]:
    """A backend's cases with other orders of summation, and with weights moved by one unit."""
    if not suite.whole:
        return []
    return [
        suite.job(backend, case, variant=variant)
        for case in suite.everything
        for variant in VARIANTS[backend][: None if case.updates > 1 else 2]
    ]


def float64_baseline_jobs(suite: Suite) -> list[Job]:
    """The baseline in float64: isolated operations, and other orders of summation."""
    # more orders than in float32: a single number may be right by chance in several
    variants = FLOAT64_VARIANTS if suite.float64 else {"case": (), "isolated": ()}
    return [
        job
        for case in suite.cases
        for job in (
            *isolated_jobs(suite, BASELINE, case, "float64", variants["isolated"]),
            *(
                suite.job(BASELINE, case, precision="float64", variant=variant)
                for variant in variants["case"]
            ),
        )
    ]


def candidate_jobs(suite: Suite) -> list[Job]:
    """The candidate in the precision that is compared."""
    jobs = []
    for case in suite.everything:
        if suite.whole:
            jobs.append(suite.job(CANDIDATE, case))
        if isinstance(case, Case):
            variants = ISOLATED_VARIANTS[CANDIDATE]
            jobs += isolated_jobs(suite, CANDIDATE, case, suite.precision, variants)
            source = suite.job(BASELINE, case).out
            if suite.whole and case.continued:
                jobs.append(suite.job(CANDIDATE, case, "continue", source=source))
    jobs += exported_jobs(suite, CANDIDATE, suite.precision, (None, *EXPORTED_VARIANTS))
    return [*jobs, suite.checks_job(CANDIDATE)] if suite.checks else jobs


def float64_jobs(suite: Suite) -> list[Job]:
    """The candidate in float64: where it differs, it computes another function."""
    return [
        job
        for case in suite.cases
        for job in (
            suite.job(CANDIDATE, case, precision="float64"),
            *isolated_jobs(suite, CANDIDATE, case, "float64", ()),
        )
    ]


def continue_jobs(suite: Suite) -> list[Job]:
    """The baseline, which continues from the candidate's state."""
    return [
        suite.job(BASELINE, case, "continue", source=suite.job(CANDIDATE, case).out)
        for case in suite.cases
        if suite.whole and case.continued
    ]


def halves(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs for two processes. All jobs of a case go to the same process, in their order."""
    cases = list(dict.fromkeys(job.case for job in jobs))
    return [[job for job in jobs if job.case in cases[start::2]] for start in (0, 1)]


class Child(NamedTuple):
    """A process that records with one backend."""

    backend: str
    process: subprocess.Popen[bytes]


def device_of(jobs: Sequence[Job]) -> dict[str, str]:
    """Environment that computes float64 on the CPU: Jittor has no float64 products on CUDA."""
    precisions = {job.precision for job in jobs}
    if "float64" not in precisions:
        return {}
    assert len(precisions) == 1, "jobs of other precisions may need the device"
    return {"CUDA_VISIBLE_DEVICES": "", "nvcc_path": "", "cache_name": ""}


def start_child(jobs: Sequence[Job], threads: int | None = None) -> Child | None:
    """Start jobs in a new process; its output goes to standard error."""
    if not jobs:
        return None
    environment = child_environment(threads) | device_of(jobs)
    child = subprocess.Popen(
        [sys.executable, "-m", "parity.suite.record", as_argument(list(jobs))],
        stdout=sys.stderr,
        env=environment,
    )
    return Child(jobs[0].backend, child)


def run_children(*children: Child | None) -> None:
    """Wait for processes that run together; if this process ends, also by SIGTERM, they end.

    Raises:
        UserError: a process failed; its own message went to standard error.
    """
    running = [child for child in children if child]
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        for child in running:
            if child.process.wait():
                raise UserError(
                    f"parity: recording backend {child.backend} ended with status "
                    f"{child.process.returncode} (see above); `transfg doctor` shows what works"
                )
    finally:
        for child in running:
            child.process.terminate()
        for child in running:
            child.process.wait()
        signal.signal(signal.SIGTERM, before)

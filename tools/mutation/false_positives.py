"""False positives of the suite: without a planted fault, nothing may differ.

The pair of backends is recorded and judged with other weights and images: with several seeds and
kinds of weights, and with trained weights. Every row that is `different` is a false alarm.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from parity.cases.case import WEIGHTS, Case, params_of
from parity.cases.golden import Golden
from parity.comparison.verdict import Row
from parity.suite import run as suite_run
from parity.suite.jobs import BASELINE, Job
from parity.suite.plan import Suite

FIRST_SEED = 101  # the cases themselves have smaller seeds


@dataclass
class TrainedSuite(Suite):
    """The cases with the trained weights CASE.trained.safetensors of the folder."""

    def job(
        self, backend: str, case: Case | Golden, kind: str = "case", **fields: str | None
    ) -> Job:
        """The job of a suite, with trained weights."""
        weights = str(self.folder / f"{case.name}.trained.safetensors")
        return replace(super().job(backend, case, kind, **fields), weights=weights)


def save_trained(reference: Path, target: Path, cases: Sequence[Case]) -> None:
    """Save the weights after the last update, from an earlier recording of the baseline."""
    earlier = Suite(reference)
    for case in cases:
        state = earlier.trace(BASELINE, case.name).arrays("state")
        save_file(params_of(state), target / f"{case.name}.trained.safetensors")


def clean_suites(folder: Path, seeds: int, cases: Sequence[Case]) -> Iterator[tuple[str, Suite]]:
    """A suite with trained weights, then suites with other seeds and kinds of weights."""
    # cases with one update save no state
    trained = [case for case in cases if case.updates > 1]
    yield "trained", TrainedSuite(folder, trained, (), checks=False)
    draws = list(WEIGHTS)
    for number in range(seeds):
        seed, draw = FIRST_SEED + number, draws[number % len(draws)]
        yield f"seed {seed}, {draw}", Suite(folder, cases, (), seed=seed, draw=draw, checks=False)


def run_clean(out: Path, seeds: int, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Record and judge the unchanged backends; return the rows that differ, also in clean.json."""
    alarms: list[dict[str, Any]] = []
    for label, suite in clean_suites(out / "false-positives", seeds, cases):
        start = time.monotonic()
        shutil.rmtree(suite.folder, ignore_errors=True)
        (suite.folder / "traces").mkdir(parents=True)
        if isinstance(suite, TrainedSuite):
            save_trained(out / "clean", suite.folder, suite.cases)
        suite_run.record_suite(suite)
        rows = suite_run.judge_suite(suite)
        differing = [row for row in rows if row.verdict == "different"]
        number = Counter(row.verdict for row in rows)
        print(
            f"{label}: {len(rows)} taps, {len(differing)} different, {number['undecided']} "
            f"undecided, {number['less precise']} less precise, {number['vacuous']} vacuous, "
            f"{time.monotonic() - start:.0f} s",
            *map(described, differing),
            sep="\n  ",
            flush=True,
        )
        alarms += [{"run": label} | row.record() for row in differing]
        (out / "clean.json").write_text(json.dumps(alarms, indent=1, default=str), "utf-8")
    shutil.rmtree(out / "false-positives", ignore_errors=True)
    return alarms


def described(row: Row) -> str:
    """A row that differs, with the numbers that it was judged by."""
    return (
        f"{row.case} {row.stage}/{row.tap} {row.precision} {row.pair}: error {row.error:.2e}, "
        f"noise floor {row.noise_floor:.2e}, bound {row.bound:.2e}, "
        f"own noise {row.candidate_noise:.2e} {row.reason}"
    )

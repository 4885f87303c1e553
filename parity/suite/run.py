"""The suite, end to end: record each backend in its own processes, judge, report.

Exit codes: 0 all taps are equivalent; 1 some tap is different; 2 some tap is undecided, or a
backend could not be recorded; 3 the worst tap is less precise.
"""

import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from parity.cases.case import Case
from parity.cases.golden import Golden
from parity.comparison.judge import NOT_JUDGED, judge
from parity.comparison.settling import settle_precision
from parity.comparison.trace import Trace, read_trace
from parity.comparison.verdict import EXIT_CODES, Evidence, Row, worst
from parity.diagnose.finding import Finding
from parity.report.console import print_table
from parity.report.files import write_reports
from parity.suite.checks import CHECKS, tagged
from parity.suite.checks.exported import judged_taps, missing_packages, runtime_trace
from parity.suite.jobs import BASELINE
from parity.suite.locate import find_causes, locate
from parity.suite.plan import (
    CANDIDATE,
    EXPORTED_VARIANTS,
    FLOAT64_VARIANTS,
    PAIR,
    RUN,
    Suite,
    baseline_jobs,
    candidate_jobs,
    continue_jobs,
    float64_baseline_jobs,
    float64_jobs,
    halves,
    reference_jobs,
    run_children,
    start_child,
    variant_jobs,
)
from parity.suite.record import KINDS, stage_of
from parity.suite.siblings import SIBLINGS
from parity.suite.vacuous import refuse_vacuous
from transfg_core.backend import BACKENDS, Arrays
from transfg_core.checkpoints.export import convert
from transfg_core.errors import UserError
from transfg_core.machine import usable_cpus

REPORTS = ("parity.json", "junit.xml", "report.html")
PUBLISHED_FORWARD = ("block00", "block01", "block02", "features", "logits")


def record_suite(suite: Suite) -> None:
    """Record everything that the verdicts need.

    The backends never share a process. Jittor locks its cache, so it has one process at a time.
    """
    for golden in suite.goldens:
        target = suite.folder / f"golden-{golden.name}.safetensors"
        convert(str(golden.checkpoint), target)
    for jobs in (reference_jobs(suite), baseline_jobs(suite)):
        run_children(*map(start_child, halves(jobs)))
    run_children(
        start_child(variant_jobs(suite, BASELINE), threads=1),
        start_child(candidate_jobs(suite) + variant_jobs(suite, CANDIDATE)),
    )
    run_children(
        *map(start_child, halves(float64_baseline_jobs(suite))),
        start_child(float64_jobs(suite) if suite.float64 else []),
        start_child(continue_jobs(suite)),
    )


def judge_suite(suite: Suite) -> list[Row]:
    """The rows of all cases. Each processor judges a case at a time."""
    if len(suite.everything) < 2:
        judged = [judge_subject(suite, subject) for subject in suite.everything]
    else:
        workers = min(usable_cpus(), len(suite.everything))
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            judged = list(pool.map(partial(judge_subject, suite), suite.everything))
    rows = [row for rows in judged for row in rows]
    rows += judge_checks(suite) if suite.checks else []
    return rows + [row for case in suite.exported for row in judge_exported(suite, case)]


def judge_subject(suite: Suite, subject: Case | Golden) -> list[Row]:
    """The rows of one case, of this project or of the published program."""
    if isinstance(subject, Golden):
        return judge_golden(suite, subject)
    return judge_case(suite, subject.name, (CANDIDATE, BASELINE) if subject.continued else ())


def both(suite: Suite, case: str, kind: str, *words: str) -> tuple[Trace, Trace]:
    """The traces of baseline and candidate."""
    return suite.trace(BASELINE, case, kind, *words), suite.trace(CANDIDATE, case, kind, *words)


def pair(suite: Suite, case: str) -> Evidence:
    """The evidence on one case: both backends, the reference and the variants."""
    return Evidence(
        baseline=suite.trace(BASELINE, case),
        candidate=suite.trace(CANDIDATE, case),
        reference=suite.trace(BASELINE, case, "case", "float64"),
        baseline_variants=suite.variants(BASELINE, case),
        candidate_variants=suite.variants(CANDIDATE, case),
        siblings=SIBLINGS,
    )


def judge_case(suite: Suite, case: str, continued: Sequence[str] = ()) -> list[Row]:
    """One case: whole, isolated and in float64.

    Each backend in `continued` is also judged on updates from the other's state.
    """
    if not suite.whole:
        return judge_isolated(suite, case)
    evidence = pair(suite, case)
    rows = judge(evidence, (*NOT_JUDGED, "cross-load"), strict=True)
    for backend in continued:
        rows += judge_crossed(suite, case, evidence, backend)
    rows += judge_isolated(suite, case)
    if suite.float64:
        rows += judge_float64(suite, case)
    return settle_precision(rows)


def judge_crossed(suite: Suite, case: str, evidence: Evidence, backend: str) -> list[Row]:
    """One backend's updates from the other's saved state, against the other's own updates."""
    continued = suite.trace(backend, case, "continue")
    crossed = Evidence(
        evidence.baseline if backend == CANDIDATE else evidence.candidate,
        continued,
        evidence.reference,
        [*evidence.baseline_variants, evidence.baseline],
        siblings=SIBLINGS,
    )
    own = [name for name in crossed.baseline.taps if name.startswith("cross-load/")]
    return judge(crossed, only=list(dict.fromkeys([*own, *continued.taps])))


def judge_isolated(suite: Suite, case: str) -> list[Row]:
    """The isolated operations of a pass, each fed with the same numbers in both backends."""
    baseline, candidate = both(suite, case, "isolated")
    reference = suite.trace(BASELINE, case, "isolated", "float64")
    return judge(
        Evidence(
            baseline,
            candidate,
            reference,
            suite.variants(BASELINE, case, "isolated"),
            suite.variants(CANDIDATE, case, "isolated"),
            siblings=SIBLINGS,
        ),
        strict=True,
    )


def judge_float64(
    suite: Suite, case: str, kinds: Sequence[str] = ("case", "isolated")
) -> list[Row]:
    """Float64 against float64: whole passes and isolated operations."""
    rows = []
    for kind in kinds:
        baseline, candidate = both(suite, case, kind, "float64")
        variants = [
            suite.trace(BASELINE, case, kind, "float64", name) for name in FLOAT64_VARIANTS[kind]
        ]
        evidence = Evidence(baseline, candidate, None, variants, siblings=SIBLINGS)
        rows += judge(evidence, (*NOT_JUDGED, "cross-load"), strict=True)
    return rows


def judge_golden(suite: Suite, golden: Golden) -> list[Row]:
    """Both backends on the published program's weights, and that program against the baseline."""
    evidence = pair(suite, f"golden-{golden.name}")
    published = published_trace(golden, evidence.baseline)
    by_program = Evidence(
        evidence.baseline,
        published,
        evidence.reference,
        evidence.baseline_variants,
        siblings=SIBLINGS,
    )
    rows = judge(evidence, NOT_JUDGED, strict=True)
    return rows + judge(by_program, only=list(published.taps))


def judge_checks(suite: Suite) -> list[Row]:
    """The checks."""
    baseline, candidate = both(suite, CHECKS.name, "checks")
    reference = suite.trace(BASELINE, CHECKS.name, "checks", "float64")
    return judge(Evidence(baseline, candidate, reference), strict=True)


def judge_exported(suite: Suite, case: Case) -> list[Row]:
    """The exported model in ONNX Runtime, against each twin."""
    reference = suite.trace(BASELINE, case.name, "exported", "float64")
    baseline = suite.trace(BASELINE, case.name, "exported")
    file = baseline.arrays("file")["onnx"]
    rows = []
    for backend in (BASELINE, CANDIDATE):
        twin = suite.trace(backend, case.name, "exported")
        variants = [
            suite.trace(backend, case.name, "exported", suite.precision, variant)
            for variant in EXPORTED_VARIANTS
        ]
        candidate = runtime_trace(case, twin, file)
        evidence = Evidence(twin, candidate, reference, variants)
        rows += judge(evidence, only=judged_taps(twin))
    return rows


def published_trace(golden: Golden, like: Trace) -> Trace:
    """The authors' arrays as a trace of the same computation as `like`."""
    stored = golden.trace()
    start = like.arrays("parameters")
    forward = {name: stored[name] for name in PUBLISHED_FORWARD}
    gradients = {name: value for name, value in stored.items() if name.startswith("grad/")}
    steps = {
        name.replace("after/", "step/"): value.astype("f8") - start[f"param/{name[6:]}"]
        for name, value in stored.items()
        if name.startswith("after/")
    }
    model = golden.config().model
    taps: Arrays = {f"{stage_of(name, model)}/{name}": value for name, value in forward.items()}
    taps["selection/part_index"] = stored["part_index"]
    taps["losses/loss"] = stored["loss"].astype("f4")  # it was stored in float64
    taps |= tagged("gradients", gradients)
    taps |= tagged("updates", steps)
    producer = {"name": "published program"}
    return Trace(golden.checkpoint, {**like.manifest, "producer": producer}, taps)


def explain(suite: Suite, rows: Sequence[Row]) -> list[Finding]:
    """Where the backends begin to differ, with likely causes from the traces of the suite."""
    return [with_causes(found, suite) if found.pair == PAIR else found for found in locate(rows)]


def with_causes(found: Finding, suite: Suite) -> Finding:
    """The finding with its likely causes, from the traces that it is about."""
    isolated = found.stage.startswith("isolated")
    kind = "checks" if found.case == CHECKS.name else "isolated" if isolated else "case"
    baseline = suite.trace(BASELINE, found.case, kind, found.precision)
    candidate_kind = "continue" if found.stage == "cross-load" else kind
    candidate = suite.trace(CANDIDATE, found.case, candidate_kind, found.precision)
    source = suite.trace(BASELINE, found.case) if isolated else None
    return find_causes(found, baseline, candidate, source)


def report(suite: Suite, rows: Sequence[Row]) -> None:
    """Print the table and the findings, and write the reports into the suite's folder."""
    findings = explain(suite, rows)
    first = suite.cases[0]
    environment = {}
    for backend in BACKENDS:
        paths = (suite.path(backend, first.name, kind, suite.precision) for kind in KINDS)
        path = next((path for path in paths if path.exists()), None)
        if path:
            environment[backend] = dict(read_trace(path).manifest["producer"])
            environment[backend].pop("cache", None)
    words = ("case", suite.precision)
    scores = [
        (suite.path(BASELINE, case.name, *words), suite.path(CANDIDATE, case.name, *words))
        for case in suite.cases
    ]
    write_reports(
        suite.folder, rows, environment, findings, [p for p in scores if all(x.exists() for x in p)]
    )
    print_table(rows)
    for finding in findings:
        print(finding.text)


def clear(folder: Path) -> None:
    """Delete traces and reports of an earlier run, and nothing else.

    So no earlier verdict is left if this run fails.

    Raises:
        UserError: the folder `traces` holds a file that no parity run made.
    """
    traces = folder / "traces"
    names = [path.name for path in traces.glob("*")]
    # a writer that was killed leaves .NAME.npz.PID
    foreign = [name for name in names if not re.fullmatch(r".+\.npz(\.\d+)?", name)]
    if foreign:
        raise UserError(
            f"{traces}: holds {foreign[0]}, which is no trace; choose another folder with --out"
        )
    shutil.rmtree(traces, ignore_errors=True)
    traces.mkdir(parents=True)
    for name in REPORTS:
        (folder / name).unlink(missing_ok=True)


def run_suite(suite: Suite, keep: bool = False) -> int:
    """Record, judge and report into the suite's folder.

    Raises:
        UserError: a backend could not be recorded.
    """
    files = [RUN, *(f"golden-{golden.name}.safetensors" for golden in suite.goldens)]
    clear(suite.folder)
    (suite.folder / RUN).unlink(missing_ok=True)
    if suite.onnx and (missing := missing_packages()):
        print(f"parity: exported models: skipped, since {' and '.join(missing)} is not installed")
        suite.onnx = False
    record_suite(suite)
    rows = judge_suite(suite)
    if suite.seed is None:  # the reasons are about the weights and images of the cases themselves
        rows = refuse_vacuous(rows)
    report(suite, rows)
    verdict = worst([row.verdict for row in rows])
    if verdict == "equivalent" and not keep:
        shutil.rmtree(suite.folder / "traces")  # hundreds of MB, and quick to record again
        for name in files:
            (suite.folder / name).unlink(missing_ok=True)
    return EXIT_CODES[verdict]

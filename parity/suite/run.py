"""The ladder, end to end: record each backend in its own processes, judge, tell, decide.

Exit codes: 0 all taps are equivalent, 1 some tap is different, 2 some could not be decided, or a
backend could not be recorded.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from parity.cases.golden import Golden
from parity.compare.evidence import SIBLINGS
from parity.compare.judge import NOT_JUDGED, judge
from parity.compare.trace import Trace, read_trace
from parity.compare.verdict import EXIT_CODES, Evidence, Row, worst
from parity.diagnose.finding import Finding
from parity.diagnose.locate import find_causes, locate
from parity.report.console import print_table
from parity.report.files import write_reports
from parity.suite.checks import PIPELINE, tagged
from parity.suite.jobs import FIRST
from parity.suite.plan import (
    CANDIDATE,
    EXACT_VARIANTS,
    PAIR,
    PIECES_VARIANTS,
    RUN,
    Ladder,
    candidate_jobs,
    continue_jobs,
    exact_first_jobs,
    exact_jobs,
    first_jobs,
    halves,
    reference_jobs,
    run_children,
    start_child,
    variant_jobs,
)
from parity.suite.record import KINDS, rung_of
from transfg_core.backend import BACKENDS, Arrays, load_authors_reader
from transfg_core.errors import UserError

REPORTS = ("parity.json", "junit.xml", "report.html")
PUBLISHED_FORWARD = ("block00", "block01", "block02", "features", "logits")


def record_ladder(ladder: Ladder) -> None:
    """Record everything that the verdicts need.

    The backends never share a process, and Jittor, which locks its cache, has one at a time.
    """
    if ladder.goldens:
        reader = load_authors_reader()
        for golden in ladder.goldens:
            target = ladder.folder / f"golden-{golden.name}.safetensors"
            reader.convert(golden.checkpoint, target)
    for jobs in (reference_jobs(ladder), first_jobs(ladder)):
        run_children(*map(start_child, halves(jobs)))
    run_children(
        start_child(variant_jobs(ladder, FIRST), threads=1),
        start_child(candidate_jobs(ladder) + variant_jobs(ladder, CANDIDATE)),
    )
    run_children(
        *map(start_child, halves(exact_first_jobs(ladder))),
        start_child(exact_jobs(ladder) if ladder.exact else []),
        start_child(continue_jobs(ladder)),
    )


def judge_ladder(ladder: Ladder) -> list[Row]:
    """The rows of all cases."""
    rows = []
    for case in ladder.cases:
        rows += judge_case(ladder, case.name, (CANDIDATE, FIRST) if case.updates > 1 else ())
    for golden in ladder.goldens:
        rows += judge_golden(ladder, golden)
    return rows + (judge_around(ladder) if ladder.around else [])


def both(ladder: Ladder, case: str, kind: str, *words: str) -> tuple[Trace, Trace]:
    """The traces of the two backends."""
    return ladder.trace(FIRST, case, kind, *words), ladder.trace(CANDIDATE, case, kind, *words)


def pair(ladder: Ladder, case: str) -> Evidence:
    """The two backends on one case, and what they are judged by."""
    return Evidence(
        first=ladder.trace(FIRST, case),
        candidate=ladder.trace(CANDIDATE, case),
        exact=ladder.trace(FIRST, case, "case", "float64"),
        first_variants=ladder.variants(FIRST, case),
        candidate_variants=ladder.variants(CANDIDATE, case),
        siblings=SIBLINGS,
    )


def judge_case(ladder: Ladder, case: str, continued: Sequence[str] = ()) -> list[Row]:
    """One case: whole, in pieces, in float64; backends in `continued` from the other's state."""
    if not ladder.whole:
        return judge_pieces(ladder, case)
    evidence = pair(ladder, case)
    rows = judge(evidence, (*NOT_JUDGED, "cross-load"))
    for backend in continued:
        rows += judge_crossed(ladder, case, evidence, backend)
    rows += judge_pieces(ladder, case)
    if ladder.exact:
        rows += judge_exact(ladder, case)
    return rows


def judge_crossed(ladder: Ladder, case: str, evidence: Evidence, backend: str) -> list[Row]:
    """One backend's update from the state that the other saved, against the other's own."""
    went_on = ladder.trace(backend, case, "continue")
    crossed = Evidence(
        evidence.first if backend == CANDIDATE else evidence.candidate,
        went_on,
        evidence.exact,
        [*evidence.first_variants, evidence.first],
        siblings=SIBLINGS,
    )
    own = [name for name in crossed.first.taps if name.startswith("cross-load/")]
    return judge(crossed, only=list(dict.fromkeys([*own, *went_on.taps])))


def judge_pieces(ladder: Ladder, case: str) -> list[Row]:
    """Every piece of a pass from the same numbers."""
    first, candidate = both(ladder, case, "pieces")
    exact = ladder.trace(FIRST, case, "pieces", "float64")
    variants = [
        ladder.trace(FIRST, case, "pieces", ladder.precision, one) for one in PIECES_VARIANTS
    ]
    return judge(Evidence(first, candidate, exact, variants, siblings=SIBLINGS))


def judge_exact(ladder: Ladder, case: str, kinds: Sequence[str] = ("case", "pieces")) -> list[Row]:
    """Float64 against float64, whole and in pieces."""
    rows = []
    for kind in kinds:
        first, candidate = both(ladder, case, kind, "float64")
        variants = [ladder.trace(FIRST, case, kind, "float64", one) for one in EXACT_VARIANTS[kind]]
        evidence = Evidence(first, candidate, None, variants, siblings=SIBLINGS)
        rows += judge(evidence, (*NOT_JUDGED, "cross-load"))
    return rows


def judge_golden(ladder: Ladder, golden: Golden) -> list[Row]:
    """The backends on the published program's weights, and that program itself."""
    evidence = pair(ladder, f"golden-{golden.name}")
    published = published_trace(golden, evidence.first)
    by_program = Evidence(
        evidence.first, published, evidence.exact, evidence.first_variants, siblings=SIBLINGS
    )
    return judge(evidence, NOT_JUDGED) + judge(by_program, only=list(published.taps))


def judge_around(ladder: Ladder) -> list[Row]:
    """What happens around the model."""
    first, candidate = both(ladder, PIPELINE.name, "pipeline")
    exact = ladder.trace(FIRST, PIPELINE.name, "pipeline", "float64")
    return judge(Evidence(first, candidate, exact))


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
    taps: Arrays = {f"{rung_of(name, model)}/{name}": value for name, value in forward.items()}
    taps["selection/part_index"] = stored["part_index"]
    taps["losses/loss"] = stored["loss"].astype("f4")  # it was stored in double
    taps |= tagged("gradients", gradients)
    taps |= tagged("updates", steps)
    producer = {"name": "published program"}
    return Trace(golden.checkpoint, {**like.manifest, "producer": producer}, taps)


def explain(ladder: Ladder, rows: Sequence[Row]) -> list[Finding]:
    """Where the backends part, with likely causes, from the traces of the ladder."""
    return [with_causes(found, ladder) if found.pair == PAIR else found for found in locate(rows)]


def with_causes(found: Finding, ladder: Ladder) -> Finding:
    """The finding with its likely causes, from the traces that it was found in."""
    pieces = found.rung.startswith("pieces")
    kind = "pipeline" if found.case == PIPELINE.name else "pieces" if pieces else "case"
    first = ladder.trace(FIRST, found.case, kind, found.precision)
    other = "continue" if found.rung == "cross-load" else kind
    candidate = ladder.trace(CANDIDATE, found.case, other, found.precision)
    given = ladder.trace(FIRST, found.case) if pieces else None
    return find_causes(found, first, candidate, given)


def report(ladder: Ladder, rows: Sequence[Row]) -> None:
    """Print the table and what was found, and write the reports into the ladder's folder."""
    found = explain(ladder, rows)
    case = ladder.cases[0]
    environment = {}
    for backend in BACKENDS:
        kinds = (ladder.path(backend, case.name, kind, ladder.precision) for kind in KINDS)
        path = next((one for one in kinds if one.exists()), None)
        if path:
            environment[backend] = dict(read_trace(path).manifest["producer"])
            environment[backend].pop("cache", None)
    words = ("case", ladder.precision)
    scores = [
        (ladder.path(FIRST, one.name, *words), ladder.path(CANDIDATE, one.name, *words))
        for one in ladder.cases
    ]
    write_reports(
        ladder.folder, rows, environment, found, [p for p in scores if all(x.exists() for x in p)]
    )
    print_table(rows)
    for finding in found:
        print(finding.text)


def clear(folder: Path) -> None:
    """Make room for a run: its own traces and reports of an earlier one go, nothing else.

    An older verdict must not outlive a failure.

    Raises:
        UserError: the folder has a `traces` that no parity run made.
    """
    traces = folder / "traces"
    names = [path.name for path in traces.glob("*")]
    # a writer that was killed leaves .NAME.npz.PID
    strange = [name for name in names if not re.fullmatch(r".+\.npz(\.\d+)?", name)]
    if strange:
        raise UserError(
            f"{traces}: holds {strange[0]}, which is no trace; choose another folder with --out"
        )
    shutil.rmtree(traces, ignore_errors=True)
    traces.mkdir(parents=True)
    for name in REPORTS:
        (folder / name).unlink(missing_ok=True)


def run_suite(ladder: Ladder, keep: bool = False) -> int:
    """Record, judge and report into the ladder's folder.

    Raises:
        UserError: a backend could not be recorded.
    """
    files = [RUN, *(f"golden-{golden.name}.safetensors" for golden in ladder.goldens)]
    clear(ladder.folder)
    (ladder.folder / RUN).unlink(missing_ok=True)
    record_ladder(ladder)
    rows = judge_ladder(ladder)
    report(ladder, rows)
    verdict = worst([row.verdict for row in rows])
    if verdict == "equivalent" and not keep:
        shutil.rmtree(ladder.folder / "traces")  # hundreds of MB, and quickly recorded again
        for name in files:
            (ladder.folder / name).unlink(missing_ok=True)
    return EXIT_CODES[verdict]

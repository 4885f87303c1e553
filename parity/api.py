"""Comparing traces of any pair of models; needs NumPy and PyYAML.

    rows = compare(["a.npz", "b.npz", "a-float64.npz", "a-ulp1.npz", "a-ulp2.npz"])

The manifests say which role each trace has (`find_evidence`). docs/parity.md is the manual;
examples/parity_convnet compares a pair of models in this way.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from parity.comparison.evidence import find_evidence
from parity.comparison.judge import NOT_JUDGED, judge, one_sided_taps
from parity.comparison.missing import missing_rows
from parity.comparison.settling import settle_precision
from parity.comparison.trace import Trace, read_trace
from parity.comparison.verdict import EXACT, EXIT_CODES, Comparison, Evidence, OneSided, Row
from parity.diagnose.answer import Answer, answer
from parity.diagnose.sources import WholeArrays
from parity.diagnose.structure import setting_rows
from parity.errors import NothingInCommon, ParityError
from parity.matching.confirmed import outputs_of
from parity.matching.declared import Declared, read_declared
from parity.matching.guesses import without_wrong_guesses
from parity.matching.named import Found
from parity.matching.telling import found_lines, unused_lines
from parity.matching.traces import align_traces, find_layouts
from parity.matching.weights import summary, unequal

MOST_LINES = 12  # a longer table is only in the reports


def compare(
    traces: Sequence[Trace | Path | str],
    mapping: Mapping[str, str] | Declared | None = None,
    siblings: Mapping[str, str] | None = None,
) -> list[Row]:
    """The verdict on every tap that both traces of a pair have; see `compare_traces`."""
    return compare_traces(traces, mapping, siblings).rows


def compare_traces(
    traces: Sequence[Trace | Path | str],
    mapping: Mapping[str, str] | Declared | None = None,
    siblings: Mapping[str, str] | None = None,
) -> Comparison:
    """The verdict on every tap that a pair of traces has in common, and the names of the others.

    Args:
        traces: the baseline, the candidate, then their evidence (`find_evidence`); each a file or
            a trace that was read.
        mapping: the candidate's tap names -> the baseline's, or names and layouts
            (`matching/declared.py`). What no pattern fits is matched by itself.
        siblings: further taps that are zero by structure, as in `Evidence`.

    Raises:
        ParityError: a file is not a whole trace, the traces are not of one computation, or a trace
            has no role.
    """
    loaded = [trace if isinstance(trace, Trace) else read_trace(trace) for trace in traces]
    places = [trace.path.resolve() for trace in loaded]
    for trace in loaded:
        if places.count(trace.path.resolve()) > 1:
            raise ParityError(
                f"{trace.path}: given twice; give different traces (each agrees with itself)"
            )
        if trace.manifest.get("kind", "case") != loaded[0].manifest.get("kind", "case"):
            raise ParityError(
                f"{trace.path} and {loaded[0].path}: recordings of different kinds; give traces "
                "of one kind"
            )
    declared = mapping if isinstance(mapping, Declared) else Declared(mapping or {})
    loaded, found = align_traces(loaded, declared)
    _refuse_unequal_weights(loaded)
    rows, one_sided = [], OneSided()
    pairs = find_evidence(loaded, siblings)
    for evidence in pairs:
        _refuse_nothing_in_common(evidence)
        alone = one_sided_taps(evidence, NOT_JUDGED)
        rows += [*judge(evidence, NOT_JUDGED), *missing_rows(evidence, alone)]
        if evidence is pairs[0]:
            rows += setting_rows(evidence)
        one_sided += alone
    found = find_layouts(found, loaded[0], loaded[1], _different(rows))
    rows, one_sided, found = without_wrong_guesses(settle_precision(rows), one_sided, found)
    return Comparison(rows, one_sided, tuple(pairs), found)


def _refuse_nothing_in_common(evidence: Evidence) -> None:
    """Equal weights alone are no evidence, where both sides have computed something."""
    baseline, candidate = evidence.baseline, evidence.candidate
    computed = [
        [tap for tap in trace.taps if tap.partition("/")[0] not in (*EXACT, *NOT_JUDGED)]
        for trace in (baseline, candidate)
    ]
    common = (
        set(computed[0]) & set(computed[1])
        if all(computed)
        else {*baseline.taps} & {*candidate.taps}
    )
    if common:
        return
    first, second = (
        own or [*trace.taps] for own, trace in zip(computed, (baseline, candidate), strict=True)
    )
    raise NothingInCommon(
        f"{baseline.path} and {candidate.path} have no computed tap in common: the first has "
        f"{', '.join(first[:2]) or 'none'}, the second {', '.join(second[:2]) or 'none'}; give a "
        "mapping of names"
    )


def _refuse_unequal_weights(traces: Sequence[Trace]) -> None:
    """Refuse a pair that starts from unequal weights, and say what shows in their numbers.

    Only for recordings that hold their parameters: others are refused by their digests
    (`find_evidence`).
    """
    facts = [t.manifest["subject"] for t in traces[:2]]
    weights = [f.get("weights") if isinstance(f, Mapping) else None for f in facts]
    if len(traces) < 2 or weights[0] == weights[1]:
        return
    arrays = [WholeArrays(trace, "parameters") for trace in traces[:2]]
    problems = unequal(arrays[0], arrays[1]) if all(arrays) else []
    if problems:
        raise ParityError(
            f"{traces[0].path} and {traces[1].path} start from unequal weights: "
            f"{summary(problems, len(arrays[0]))}; load the same weights into both"
        )


def _different(rows: Sequence[Row]) -> list[str]:
    return [f"{row.stage}/{row.tap}" for row in rows if row.verdict == "different"]


def explained(comparison: Comparison) -> Answer:
    """The causes of what a comparison found."""
    return answer(comparison.rows, comparison.pairs, comparison.one_sided, found=comparison.found)


def pair_labels(traces: Sequence[Trace]) -> tuple[str, str]:
    """Names of baseline and candidate for people: of their frameworks, or of their files."""
    baseline, candidate = traces[:2]
    labels = str(baseline.producer("name")), str(candidate.producer("name"))
    return labels if len(set(labels)) == 2 else (baseline.path.stem, candidate.path.stem)


def compare_files(
    paths: Sequence[Path],
    names: Path | None = None,
    out: Path | None = None,
    siblings: Mapping[str, str] | None = None,
    explain: Callable[[Comparison], Answer] | None = None,
) -> int:
    """Compare trace files, print the answer, and write the reports into `out` if that is given.

    `explain` finds the causes, `parity.diagnose.answer` if it is None.

    Returns the exit code: 0 equivalent, 1 different, 2 undecided, 3 less precise.

    Raises:
        ParityError: as in `compare`; its exit code is 2.
    """
    traces = [read_trace(path) for path in paths]
    comparison = compare_traces(traces, read_declared(names) if names else None, siblings)
    return tell(comparison, traces, out, explain)


def tell(
    comparison: Comparison,
    traces: Sequence[Trace],
    out: Path | None = None,
    explain: Callable[[Comparison], Answer] | None = None,
    junit: Path | None = None,
    notes: Sequence[str] = (),
) -> int:
    """Print the answer to a comparison; write the reports into `out`, and JUnit's XML to `junit`.

    `traces` begins with the pair; `notes` are those of the recorders. Returns the exit code, as
    `compare_files` does.

    Raises:
        CannotWrite: the operating system cannot write a report.
    """
    from parity.report.answer import answer_lines  # recording and judging do not need these
    from parity.report.console import print_table
    from parity.report.files import JSON, replace_files, write_reports
    from parity.report.junit import junit_text
    from parity.report.summary import Remarks, place_and_numbers, summaries

    rows, labels = comparison.rows, pair_labels(traces)
    result = explain(comparison) if explain else explained(comparison)
    if len(summaries(rows)) <= MOST_LINES:
        print_table(rows)
    found = comparison.found or Found()
    notes = [*unused_lines(found), *notes]
    for line in found_lines(found, outputs_of(comparison), JSON if out else ""):
        print(line)
    for line in answer_lines(result, rows, comparison.one_sided, labels):
        print(line)
    for note in notes:
        print(f"note: {note}")
    if out:
        facts = [trace.manifest["producer"] for trace in traces[:2]]
        environment = dict(zip(labels, facts, strict=True))
        begins = place_and_numbers(result.begins) if result.begins else ""
        names = {pair.candidate: pair.baseline for pair in found.renamed}
        remarks = Remarks(begins, result.limits, notes, names)
        write_reports(out, rows, environment, result.findings, (), comparison.one_sided, remarks)
    if junit:
        replace_files(junit.parent, {junit.name: junit_text(rows)})
    return EXIT_CODES[comparison.verdict]

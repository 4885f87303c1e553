"""For pytest: one assertion that two programs compute the same function.

    from parity.testing import assert_equivalent

    def test_port():
        assert_equivalent("pair.py")  # records what changed, as `parity run` does

`torch.testing.assert_close` compares two arrays by a chosen tolerance. This compares whole
recordings by measured bounds, and its message says where the two programs begin to differ.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from parity.api import compare_traces, explained
from parity.comparison.trace import Trace
from parity.comparison.verdict import SEVERITY, Comparison, Row, Verdict
from parity.errors import ParityError
from parity.folder import compare_folder, refuse_changed_files
from parity.matching.declared import read_declared
from parity.report.summary import counts

__tracebackhide__ = True  # pytest shows the caller's line, not this file
VACUOUS: tuple[Verdict, ...] = ("vacuous",)
MOST, MOST_CAUSES = 10, 3  # taps and causes that a message names


def assert_equivalent(
    traces: Path | str | Sequence[Trace | Path | str],
    *,
    allow: Collection[Verdict] = VACUOUS,
    names: Mapping[str, str] | Path | str | None = None,
    only: Sequence[str] = ("*",),
    out: Path | str | None = None,
) -> None:
    """Raise an AssertionError unless every tap that both traces have is equivalent.

    A tap that is `undecided` fails as well: it is no evidence.

    Args:
        traces: a pair file (.py): its sides are recorded, but for what did not change; the folder
            of `parity run`, which must be of the present source; or baseline, candidate and their
            evidence, as in `parity.compare`, which are compared as they are.
        allow: further verdicts that are accepted, such as `less precise`. If all taps are vacuous,
            the assertion fails, whatever is allowed.
        names: the candidate's tap names -> the baseline's, or a YAML file of these; of a pair file,
            `names` and `layouts` of the pair count.
        only: patterns of the taps (`stage/tap`, with `*`) to check; each must fit a common tap.
        out: the folder of a pair file's recordings; default: `parity-NAME` here.

    Raises:
        AssertionError: a tap is not equivalent. The message holds the first of the worst taps,
            its error and bound, its greatest difference and the cause, and counts the others.
        ParityError: a side cannot be recorded, source has changed since a folder was recorded, the
            traces cannot be compared, or a pattern fits no tap.
    """
    mapping = read_declared(names) if isinstance(names, Path | str) else names
    if not isinstance(traces, Path | str):
        comparison = compare_traces(traces, mapping)
    elif Path(traces).suffix == ".py":
        comparison = _recorded(Path(traces), out, mapping)
    else:
        refuse_changed_files(Path(traces))
        comparison, _ = compare_folder(Path(traces), mapping)
    rows = _chosen(comparison.rows, only)
    bad = [row for row in rows if row.verdict != "equivalent" and row.verdict not in allow]
    if not bad and all(row.verdict == "vacuous" for row in rows):
        bad = rows
    if bad:
        raise AssertionError(failure(rows, bad, comparison))


def _recorded(pair: Path, out: Path | str | None, mapping: object) -> Comparison:
    """Record what changed of a pair file, and compare."""
    from parity.running import record_and_compare  # for traces, no side needs to start

    if mapping is not None:
        raise ParityError(f"names: {pair} has fields for these: `names` and `layouts` of its pair")
    comparison, _, _ = record_and_compare(pair, Path(out) if out else None)
    return comparison


def _chosen(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    for pattern in only:
        if not any(fnmatchcase(f"{row.stage}/{row.tap}", pattern) for row in rows):
            raise ParityError(f"only: {pattern!r} fits none of the {len(rows)} common taps")
    return [
        row for row in rows if any(fnmatchcase(f"{row.stage}/{row.tap}", each) for each in only)
    ]


def failure(rows: Sequence[Row], bad: Sequence[Row], comparison: Comparison) -> str:
    """What an assertion says: the first of the worst taps in full, then the names of the others."""
    severest = max(SEVERITY[row.verdict] for row in bad)
    first = next(row for row in bad if SEVERITY[row.verdict] == severest)
    number = {verdict: count for verdict, count in counts(rows).items() if count}
    lines = [
        f"The candidate is not equivalent to the baseline ({first.pair})!",
        "",
        f"First tap: {place(first)}: {first.verdict}" + (first.reason and f": {first.reason}"),
        f"Relative error (L2): {first.error:.3g} (up to {first.bound:.3g} allowed; noise floor "
        f"{first.noise_floor:.3g})",
    ]
    if first.values and first.index is not None:
        candidate, baseline = first.values
        lines.append(
            f"Greatest absolute difference: {abs(candidate - baseline):.3g} at index "
            f"{first.index}: candidate {candidate:.9g}, baseline {baseline:.9g}"
        )
    lines += [
        f"Mismatched taps: {len(bad)} / {len(rows)} "
        f"({', '.join(f'{count} {verdict}' for verdict, count in number.items())})",
        *(f"  {place(row)}: {row.verdict}" for row in bad[:MOST]),
    ]
    if len(bad) > MOST:
        lines.append(f"  and {len(bad) - MOST} more")
    lines += [f"Cause: {finding.text}" for finding in explained(comparison).findings[:MOST_CAUSES]]
    sides = zip(("baseline", "candidate"), _one_sided(comparison), strict=True)
    lines += [
        f"Only in the {side}, not compared: {len(names)} taps" for side, names in sides if names
    ]
    return "\n".join(lines)


def _one_sided(comparison: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return comparison.one_sided.baseline, comparison.one_sided.candidate


def place(row: Row) -> str:
    """The tap and its precision."""
    return f"{row.stage}/{row.tap} in {row.precision}"

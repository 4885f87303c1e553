"""The answer on one screen: the verdict of each part of the computation, and what is wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence

from parity.comparison.verdict import SEVERITY, OneSided, Row, Verdict, worst
from parity.diagnose.answer import Answer
from parity.diagnose.finding import Finding
from parity.diagnose.stages import module_of, place_of
from parity.report.console import one_sided_lines
from parity.report.summary import place_and_numbers, shown

MOST_FINDINGS, WIDTH = 9, 30
# kind of a tap, whether in training, whether of a module alone -> name of the part
PARTS = {
    "state": "weights",
    "forward": "forward pass",
    "loss": "loss",
    "backward": "gradients",
    "gradients": "gradients",
    "statistics": "running statistics",
    "update": "update",
    "random": "dropout",
}


def part_of(row: Row) -> str:
    """The part of the computation that a row belongs to; stages of other programs are their own."""
    place = place_of(row.stage, row.tap)
    if place.isolated:
        return "each module alone"
    name = PARTS.get(place.kind, row.stage)
    training = place.training and place.kind in ("forward", "loss", "backward", "gradients")
    name = "forward pass" if name == "loss" else name
    return f"{name} in training" if training else name


def is_tie(row: Row) -> bool:
    """Whether the row's choices differ by ties alone; float64 would count them again."""
    return row.precision != "float64" and row.verdict == "equivalent"


def in_float64_alone(rows: Sequence[Row], verdict: Verdict) -> bool:
    """Whether the rows of a tap have a verdict in float64, and in no other precision."""
    return {row.precision for row in rows if row.verdict == verdict} == {"float64"}


def part_lines(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each part: its worst verdict, and how many taps have it."""
    parts: dict[tuple[str, str], list[Row]] = {}
    several = len({row.case for row in rows}) > 1
    for row in rows:
        parts.setdefault((row.case if several else "", part_of(row)), []).append(row)
    for (case, part), members in parts.items():
        by_tap: dict[tuple[str, str], list[Row]] = {}
        for row in members:
            by_tap.setdefault((row.stage, row.tap), []).append(row)
        verdicts = [worst([row.verdict for row in group]) for group in by_tap.values()]
        verdict = worst(verdicts)
        count = verdicts.count(verdict)
        others = Counter(v for v in verdicts if v not in ("equivalent", verdict))
        ties = sum(len(row.ties) for row in members if is_tie(row))
        exact = sum(in_float64_alone(group, verdict) for group in by_tap.values())
        alone = f", {exact} in float64 alone" if 0 < exact < count else ""
        alone = ", in float64 alone" if exact == count else alone
        of = f"{count} of " if count < len(verdicts) or SEVERITY[verdict] > 0 else ""
        of += f"{len(verdicts)} taps{alone if SEVERITY[verdict] > 0 else ''}"
        more = "".join(f"; {number} {other}" for other, number in others.items())
        tied = f", {ties} tie{'s' * (ties > 1)}" if ties else ""
        name = f"{case} {part}".strip()
        yield f"{name + ':':<{WIDTH}} {verdict}, {of}{tied}{more}"


def known_lines(answer: Answer, rows: Sequence[Row]) -> list[str]:
    """A line if every finding is a known fault of the framework, and whether all else agrees."""
    if not answer.findings or answer.open or not all(each.known for each in answer.findings):
        return []
    behind = {name for finding in answer.findings for name in behind_of(finding)}
    count = len(behind & {f"{row.stage}/{row.tap}" for row in rows if is_hidden(row)})
    line = "every finding is a known fault of the framework"
    if not count:
        return [f"{line}; all other compared taps agree"]
    taps = "1 tap behind them is" if count == 1 else f"{count} taps behind them are"
    return [f"{line}, but {taps} not judged: `replace` computes behind a fault"]


def is_hidden(row: Row) -> bool:
    """Whether a fault before it leaves a row without a verdict of its own. One in float64 alone is
    far too small to hide anything."""
    return row.precision != "float64" and row.verdict in ("different", "undecided")


def behind_of(finding: Finding) -> set[str]:
    """The taps that a finding explains and that are not of its own places."""
    places, found = set(finding.places), set()
    for name in finding.explained:
        stage, _, tap = name.partition("/")
        own = place_of(stage, tap).name
        if places.isdisjoint((own, module_of(own))):
            found.add(name)
    return found


def answer_lines(
    answer: Answer,
    rows: Sequence[Row],
    one_sided: OneSided | None = None,
    labels: tuple[str, str] = ("the baseline", "the candidate"),
) -> list[str]:
    """The lines of the answer, at most some twenty-five."""
    lines = list(part_lines(rows))
    known = {name for finding in answer.findings for name in finding.explained}
    for number, finding in enumerate(answer.findings[:MOST_FINDINGS], 1):
        lines.append(f"{number}. {finding.kind}: {finding.text}")
    more = len(answer.findings) - MOST_FINDINGS
    if more > 0:
        lines.append(f"and {more} more findings, in parity.json and on the page")
    if answer.open:
        first = answer.open[0]
        count = len({(row.stage, row.tap) for row in answer.open})
        lines.append(
            f"not decided: {count} tap{'s' * (count > 1)}, first {first.stage}/{first.tap} in "
            f"{first.precision}: {first.reason}"
        )
    if one_sided:
        lines += one_sided_lines(one_sided.without(known), labels)
    lines += known_lines(answer, rows)
    lines += [f"limit: {sentence}" for sentence in answer.limits]
    place = f", begins at {place_and_numbers(answer.begins)}" if answer.begins else ""
    lines.append(f"verdict: {answer.verdict}{place}")
    return [shown(line) for line in lines]

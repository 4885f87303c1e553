"""One planted pair: record, compare, explain, and check the answer against its entry."""

import shutil
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from parity.api import explained, pair_labels
from parity.diagnose.answer import Answer
from parity.diagnose.finding import Finding
from parity.errors import ParityError
from parity.matching.named import Found
from parity.matching.telling import found_lines
from parity.report.answer import answer_lines
from tools.planted_pairs.faults import ALL
from tools.planted_pairs.planted import Planted
from tools.planted_pairs.recording import record_and_compare

PAIR = """from tools.planted_pairs.faults import pair_of

pair = pair_of({name!r})
"""


@dataclass(frozen=True)
class Outcome:
    """What the answer to one pair says; `text` is the whole answer."""

    entry: Planted
    verdict: str
    findings: tuple[Finding, ...]
    text: str
    seconds: float

    @property
    def first(self) -> Finding | None:
        """The finding of the planted fault: the first of its place, else the first of all."""
        there = [each for each in self.findings if at(each, self.entry.place)]
        return next(iter([*there, *self.findings]), None)

    @property
    def caught(self) -> bool:
        """Whether the verdict shows a fault; of a control, whether it is equivalent."""
        return (self.verdict == "equivalent") == (self.entry.verdict == "equivalent")

    @property
    def placed(self) -> bool:
        """Whether a finding is at the fault's place."""
        return self.first is not None and at(self.first, self.entry.place)

    @property
    def named(self) -> bool:
        """Whether the finding of this place has the expected cause."""
        return self.placed and self.first is not None and self.first.code == self.entry.code

    @property
    def classed(self) -> bool:
        """Whether the finding of this place has the expected class."""
        return self.placed and self.first is not None and self.first.kind == self.entry.kind

    @property
    def more(self) -> int:
        """Findings beside the one that is expected."""
        return max(0, len(self.findings) - bool(self.entry.kind))

    @property
    def right(self) -> bool:
        """Whether all that is said is true, and nothing else is said."""
        if self.entry.kind:
            return self.caught and self.named and self.classed and not self.more
        return self.caught and not self.findings and self.entry.told in self.text


def at(finding: Finding, pattern: str) -> bool:
    """Whether a finding is of a place; patterns are of modules or parameters."""
    return bool(pattern) and any(fnmatchcase(place, pattern) for place in finding.places)


def try_pair(name: str, out: Path, keep: bool = False) -> Outcome:
    """Record and explain the pair of an entry; its files are deleted unless `keep`.

    A pair that the recorder refuses has the verdict `refused`.
    """
    folder, start = out / name, time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "pair.py"
    file.write_text(PAIR.format(name=name), encoding="utf-8")
    try:
        verdict, answer, text = answer_to(file, folder)
    except ParityError as error:
        verdict, answer, text = "refused", None, str(error)
    (folder / "answer.txt").write_text(text + "\n", encoding="utf-8")
    if not keep:
        for trace in folder.glob("*.npz"):
            trace.unlink()
    findings = answer.findings if answer else ()
    return Outcome(ALL[name], verdict, findings, text, time.monotonic() - start)


def answer_to(file: Path, folder: Path) -> tuple[str, Answer, str]:
    """Verdict, findings and lines of the answer to a pair file."""
    comparison, traces, notes = record_and_compare(file, folder)
    result = explained(comparison)
    lines = [
        *found_lines(comparison.found or Found()),
        *answer_lines(result, comparison.rows, comparison.one_sided, pair_labels(traces)),
        *(f"note: {note}" for note in notes),
    ]
    return comparison.verdict, result, "\n".join(lines)

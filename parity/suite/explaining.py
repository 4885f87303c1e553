"""Causes in traces of the suite that were compared by hand, from the architectures' tables."""

from parity.api import explained
from parity.comparison.verdict import Comparison
from parity.diagnose.answer import Answer, first_row
from parity.diagnose.finding import Finding
from parity.diagnose.matched import matched_findings
from parity.matching.named import Found
from parity.suite.locate import find_causes, locate

SECTIONS = {"model", "loss", "optim", "train", "data"}  # of a configuration of this project


def explained_as_in_suite(comparison: Comparison) -> Answer:
    """The findings of the suite for its own traces; for other traces, `parity.diagnose.answer`."""
    settings = [p.baseline.manifest.get("subject", {}).get("settings") for p in comparison.pairs]
    if not all(isinstance(each, dict) and SECTIONS <= each.keys() for each in settings):
        return explained(comparison)
    rows = comparison.rows
    findings = tuple(with_causes(found, comparison) for found in locate(rows))
    findings += tuple(matched_findings(comparison.found or Found(), rows))
    undecided = tuple(row for row in rows if row.verdict == "undecided" and not findings)
    return Answer(comparison.verdict, findings, undecided, first_row(rows, comparison.verdict))


def with_causes(found: Finding, comparison: Comparison) -> Finding:
    """The finding with its likely causes, from the traces that its row was judged by."""
    for pair in comparison.pairs:
        if pair.candidate.manifest["precision"] == found.precision:
            return find_causes(found, pair.baseline, pair.candidate)
    return found

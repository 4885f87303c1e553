"""junit.xml: one test case per tap, for CI systems."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from parity.comparison.verdict import Row
from parity.report.summary import NUMBERS, counts, grouped, shown, strict_json, why

# Elements of a row that is not equivalent
TAGS = {
    "different": "failure",
    "less precise": "failure",
    "undecided": "error",
    "vacuous": "skipped",
}


def junit_text(rows: Sequence[Row]) -> bytes:
    """The text of junit.xml: one test case per tap.

    An undecided tap is an `error`, not `skipped`: CI systems treat skipped tests as harmless, and
    an undecided tap must not look like an equivalent one. A less precise tap is a `failure`; a
    vacuous one is `skipped`.
    """
    root = ElementTree.Element("testsuites", _totals(rows) | {"name": "parity"})
    for key, members in grouped(rows, "pair", "precision", "case", "stage").items():
        name = shown(".".join(key))
        suite = ElementTree.SubElement(root, "testsuite", _totals(members) | {"name": name})
        for row in members:
            case = {"classname": name, "name": shown(row.tap), "time": "0"}
            element = ElementTree.SubElement(suite, "testcase", case)
            properties = ElementTree.SubElement(element, "properties")
            for number in NUMBERS:
                value = f"{getattr(row, number):.6g}"
                ElementTree.SubElement(properties, "property", {"name": number, "value": value})
            if row.verdict != "equivalent":
                tag = TAGS[row.verdict]
                facts = {"type": row.verdict, "message": why(row)}
                ElementTree.SubElement(element, tag, facts).text = shown(strict_json(row.record()))
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _totals(rows: Sequence[Row]) -> dict[str, str]:
    by_verdict = counts(rows)
    failures = by_verdict["different"] + by_verdict["less precise"]
    numbers = (len(rows), failures, by_verdict["undecided"], by_verdict["vacuous"])
    names = ("tests", "failures", "errors", "skipped")
    return dict(zip(names, map(str, numbers), strict=True))

"""Reports of made-up rows: every format holds the same counts, for any names and numbers."""

import base64
import errno
import io
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from parity.comparison.trace import write_trace
from parity.comparison.verdict import Row
from parity.comparison.zeros import ZERO
from parity.diagnose.finding import Finding
from parity.errors import CannotWrite
from parity.report.console import print_table
from parity.report.files import write_reports
from tools.gpu import report as gpu_report
from transfg_core.report.parity_suite import parity_table

HOSTILE = "<b>\"'&]]> $\\frac{ [red] 龍 \x00\x1b[31m \ud800 " + "x" * 300
ENVIRONMENT = {
    "one": {"name": "one", "version": "1.2<3", "device": {"cpu": "Some & such"}, "cuda": None},
    "two": {"name": "two", "version": "9.9", "threads": 2},
    "date": "2026-11-20",
}
FILES = ["junit.xml", "parity.json", "report.html"]


def row(tap, stage="forward", **fields):
    """An equivalent row at half of its bound, except for `fields`."""
    facts = {
        "case": "small",
        "precision": "float32",
        "pair": "two : one",
        "verdict": "equivalent",
        "error": 2.5e-7,
        "baseline_error": 2e-7,
        "noise_floor": 1e-7,
        "bound": 5e-7,
        "candidate_noise": 2e-7,
        "pair_error": 1e-7,
        "index": (1, 2),
        "values": (0.1234567891, 0.1234567892),
    }
    return Row(stage=stage, tap=tap, **(facts | fields))


def suite():
    """Rows of two cases, two stages and two precisions that all agree."""
    return [
        row(f"{prefix}block{i:02d}", stage, case=case, precision=precision)
        for precision in ("float32", "float64")
        for case in ("small", "large")
        for stage, prefix in (("forward", ""), ("backward", "d/"))
        for i in range(4)
    ]


TIE = {"image": 3, "head": 1, "baseline": 17, "candidate": 18, "margin": 1e-9, "noise": 2e-8}
BAD = [
    row("different", verdict="different", error=3e-3, bias=77.0, ulps=4321.0),
    row("undecided", verdict="undecided", reason="the baseline's noise is too large to tell"),
    row("absent", verdict="different", error=np.inf, pair_error=np.inf, index=None, values=None),
    row("nothing", verdict="different", error=np.nan, values=(np.nan, np.inf), bound=0.0),
    row("part_index", "selection", ties=(TIE, TIE | {"margin": np.inf}), verdict="different"),
    row("grad/blocks.0.attn.key.bias", "gradients", error=0.8, reason=ZERO),
    row("step/blocks.0.attn.key.bias", "updates", error=9e4, reason="key-bias-under-adam"),
    row("equal", error=0.0, bound=0.0, pair_error=0.0),
    row(HOSTILE, HOSTILE, case=HOSTILE, pair=HOSTILE, verdict="different", reason=HOSTILE),
]


FOUND = Finding(
    "small", "two : one", "float32", "forward", "different", "forward",
    (("tanh", "GELU in its <tanh> form"), ("a", HOSTILE)), "The first difference is here.",
)  # fmt: skip


class Opened(HTMLParser):
    """Checks that tags close in order; collects text, images and references."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.text, self.images, self.references, self.tags = [], [], [], [], set()
        self.feed(text)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.tags.add(tag)
        self.references += [facts[key] for key in ("src", "href", "srcset", "data") if key in facts]
        if tag == "img":
            self.images.append(facts)
        elif tag != "meta":
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("style", "title"):
            self.text.append(" ".join(data.split()))


def report(folder, rows, *more):
    """Write a report and read its three files."""
    write_reports(folder, rows, ENVIRONMENT, *more)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    found = json.loads((folder / "parity.json").read_text(), parse_constant=pytest.fail)
    return found, ElementTree.parse(folder / "junit.xml").getroot(), page_of(folder)


def page_of(folder):
    text = (folder / "report.html").read_text()
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    return Opened(text)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (suite(), "equivalent"),
        ([*suite(), BAD[0]], "different"),
        ([*suite(), BAD[1]], "undecided"),
        ([*suite(), *BAD], "different"),
        (BAD[-1:], "different"),
        ([], "undecided"),
    ],
)
def test_all_formats_agree(tmp_path, capsys, rows, verdict):
    found, junit, page = report(tmp_path, rows, [FOUND] if verdict == "different" else [])
    expected = Counter(one.verdict for one in rows)
    assert found["format"] == "parity-report/3" and found["verdict"] == verdict
    assert found["counts"] == {key: expected[key] for key in found["counts"]}
    assert sum(one["taps"] for one in found["stages"]) == len(found["rows"]) == len(rows)
    totals = [len(rows), expected["different"], expected["undecided"], 0]
    for element in (junit, *junit.iter("testsuite")):
        counts = [int(element.get(key)) for key in ("tests", "failures", "errors", "skipped")]
        tags = ("testcase", "failure", "error", "skipped")
        assert counts == [sum(1 for _ in element.iter(tag)) for tag in tags]
        assert element.tag == "testsuite" or counts == totals
    print_table(rows)
    assert capsys.readouterr().out.splitlines()[-1] == found["sentence"]
    assert found["sentence"] in page.text and found["sentence"].startswith(verdict)


def test_programs_that_read_parity_json(tmp_path):
    """The report on runs and the report of a GPU machine read the fields that are written."""
    write_reports(tmp_path / "parity", [*suite(), *BAD], ENVIRONMENT)
    path = tmp_path / "parity" / "parity.json"
    table = parity_table(path)
    found = json.loads(path.read_text())
    pairs = {(stage["pair"], stage["precision"]) for stage in found["stages"]}
    assert {tuple(line[:2]) for line in table.rows} == pairs
    assert sum(int(line[2]) for line in table.rows) == len(found["rows"])
    rows = list(gpu_report.parity_rows(found))
    assert len(rows) == len(found["stages"])


def test_parity_json_keeps_what_matters(tmp_path):
    found, _, _ = report(tmp_path, [*suite(), *BAD], [FOUND])
    rows = {one["tap"]: one for one in found["rows"]}
    assert rows["absent"]["error"] is None and rows["absent"]["ratio"] is None
    assert rows["nothing"]["error"] is None and rows["nothing"]["values"] == [None, None]
    assert rows["different"]["ulps"] == 4321 and rows["different"]["index"] == [1, 2]
    assert rows["part_index"]["ties"] == [TIE, TIE | {"margin": None}]
    assert rows["block00"].keys() == {*"case stage tap precision pair verdict".split()} | {
        *"error noise_floor bound ratio".split()
    }
    assert rows["grad/blocks.0.attn.key.bias"]["reason"] == ZERO
    assert HOSTILE in rows
    assert found["findings"][0]["causes"][0] == ["tanh", "GELU in its <tanh> form"]
    assert found["environment"]["two"]["threads"] == 2


def test_the_worst_tap_of_a_stage(tmp_path):
    """A verdict comes before a ratio, NaN before every number, and zeros have no ratio."""
    rows = [row("a", error=4e-7), row("b", verdict="undecided", error=1e-9), row("c")]
    assert report(tmp_path, rows)[0]["stages"][0]["tap"] == "b"
    rows += [replace(BAD[0], tap="d"), BAD[3]]
    assert report(tmp_path, rows)[0]["stages"][0]["tap"] == "nothing"
    rows = [BAD[5], row("grad/head.bias", "gradients"), BAD[6], row("step/head.bias", "updates")]
    taps = [one["tap"] for one in report(tmp_path, rows)[0]["stages"]]
    assert taps == ["grad/head.bias", "step/head.bias"]


def test_junit_names_and_reasons(tmp_path):
    _, junit, _ = report(tmp_path, BAD)
    cases = {one.get("name"): one for one in junit.iter("testcase")}
    one = cases["different"]
    assert one.get("classname") == "two : one.float32.small.forward"
    values = {prop.get("name"): float(prop.get("value")) for prop in one.iter("property")}
    assert values == {"error": 3e-3, "noise_floor": 1e-7, "bound": 5e-7, "ratio": 6e3}
    assert "0.003" in one.find("failure").get("message")
    assert "too large to tell" in cases["undecided"].find("error").get("message")
    assert any(name.startswith("<b>\"'&]]>") for name in cases)


def test_the_page_stands_alone_and_is_complete(tmp_path):
    found, _, page = report(tmp_path / "all", [*suite(), *BAD], [FOUND])
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "b"})
    assert all(one.startswith("data:image/svg+xml;base64,") for one in page.references)
    assert len(page.images) == 5 and all(len(one["alt"]) > 60 for one in page.images)
    for image in page.images:
        svg = ElementTree.parse(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        references = [v for e in svg.iter() for k, v in e.attrib.items() if k.endswith("href")]
        assert svg.getroot().tag.endswith("svg") and all(v.startswith("#") for v in references)
    text = " ".join(page.text)
    for words in ("1.2<3", "Some & such", "2026-11-20", "4321", "77.0", "infinite", "not a number"):
        assert words in text, words
    for words in ("The first difference is here.", "GELU in its <tanh> form", "key-bias-under-adam",
                  "no tie", "2.00e-08", "grad/*.attn.key.bias"):  # fmt: skip
        assert words in text, words
    assert "\x00" not in text and "\x1b" not in text
    assert len(found["stages"]) == 8


def test_isolated_operations_have_a_picture_if_there_is_no_whole_pass(tmp_path):
    rows = [row(f"fc{i}", "isolated forward", case="") for i in range(5)]
    _, _, page = report(tmp_path, rows)
    assert len(page.images) == 2 and "isolated operations" in " ".join(page.text)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_reports(tmp_path / name, [*suite(), *BAD], ENVIRONMENT, [FOUND])
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_part_scores_are_plotted(tmp_path):
    scores = np.random.default_rng(0).random((2, 3, 20), np.float32)
    paths = []
    for name, value in (("one", scores), ("two", scores * (1 + 1e-6))):
        paths.append(tmp_path / f"{name}.npz")
        manifest = {"case": "small", "precision": "float32", "subject": {}}
        write_trace(
            paths[-1], {"selection/part_scores": value}, manifest | {"producer": {"name": name}}
        )
    _, _, page = report(tmp_path / "out", suite(), (), [tuple(paths)])
    assert len(page.images) == 6 and "Scatter plots of 1 cases" in page.images[-1]["alt"]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch, failing):
    write_reports(tmp_path, suite(), ENVIRONMENT)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    sync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="No space left"):
        write_reports(tmp_path, BAD, ENVIRONMENT)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, call):
    (tmp_path / "file").write_text("whole")
    folder = tmp_path / "file" if call == "mkdir" else tmp_path / "file" / "inside"
    with pytest.raises(CannotWrite, match="file"):
        write_reports(folder, suite(), ENVIRONMENT)
    assert (tmp_path / "file").read_text() == "whole"


def test_without_jinja2(tmp_path, monkeypatch, capsys):
    """The other files are written, and an older page is removed."""
    write_reports(tmp_path, BAD, ENVIRONMENT)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    write_reports(tmp_path, suite(), ENVIRONMENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES[:2]
    assert "report.html is not written: the page needs jinja2" in capsys.readouterr().err


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    """The page has its tables, but no figure."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_reports(tmp_path, [*suite(), *BAD], ENVIRONMENT)
    page = (tmp_path / "report.html").read_text()
    assert "<figure>" not in page and "Worst" in page and 'aria-label="Stages"' in page
    assert "report.html has no figures: the page needs matplotlib" in capsys.readouterr().err


def test_the_table_holds_names_as_they_are(capsys):
    print_table([*suite(), *BAD])
    text = capsys.readouterr().out
    assert "[red]" in text and "\x1b" not in text and "\x00" not in text
    assert "inf" in text and "float64" in text

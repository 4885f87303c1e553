"""The answer on one screen, and the findings of the page."""

import json
import math
from dataclasses import replace

import pytest

from parity.comparison.verdict import OneSided, Row
from parity.diagnose.answer import Answer
from parity.diagnose.finding import Finding
from parity.report.answer import answer_lines, part_lines
from parity.report.files import json_text
from parity.report.page import page_text
from parity.report.summary import Remarks


def row(stage, tap, verdict="equivalent", **fields):
    facts = {"case": "", "precision": "float32", "pair": "b : a", "error": 1e-7, "bound": 5e-7}
    more = {"baseline_error": 0.0, "noise_floor": 1e-7, "candidate_noise": 0.0, "pair_error": 0.0}
    return Row(stage=stage, tap=tap, verdict=verdict, **(facts | more | fields))


ROWS = [
    row("parameters", "fc.weight"),
    row("forward", "conv"),
    row("forward", "conv", precision="float64", verdict="less precise"),
    row("forward", "fc"),
    row("losses", "loss"),
    row("gradients", "fc.weight"),
    row("training forward", "conv", "different", error=0.25, index=(1, 2), values=(3.0, 4.0)),
    row("training statistics", "bn.running_var", "undecided", reason="noise", error=math.inf),
    row("isolated forward", "conv"),
]
FOUND = Finding(
    "", "b : a", "float32", "training forward", "conv", "forward", (("padding", "padding is 0"),),
    "padding is 0 (conv, Conv in lib/conv.py:7); the relative error is 0.25",
    places=("conv", "conv2"), explained=("training forward/conv", "training forward/fc"),
    source="lib/conv.py:7", shown_by="recomputing", error=0.25,
)  # fmt: skip


def told(rows=ROWS, findings=(FOUND,), one_sided=None, limits=(), left=()):
    begins = next((each for each in rows if each.verdict == "different"), None)
    verdict = "different" if begins else "equivalent"
    answer = Answer(verdict, tuple(findings), tuple(left), begins, tuple(limits))
    return answer_lines(answer, rows, one_sided, ("torch", "jittor"))


def test_a_part_counts_all_that_do_not_agree():
    rows = [
        row("isolated forward", "a", "less precise"),
        row("isolated forward", "b", "less precise"),
        row("isolated forward", "c", "different"),
        row("isolated forward", "d", "undecided"),
        row("isolated forward", "e", ties=({}, {})),
    ]
    (line,) = part_lines(rows)
    expected = "different, 1 of 5 taps, 2 ties; 2 less precise; 1 undecided"
    assert " ".join(line.split()) == f"each module alone: {expected}"


def test_an_answer_of_known_faults_alone_says_so():
    known = replace(FOUND, known="running-variance")
    words = "every finding is a known fault of the framework"
    own = replace(known, places=("conv", "fc"))
    behind = ", but 1 tap behind them is not judged: `replace` computes behind a fault"
    for findings, left, expected in (
        ((own,), (), "; all other compared taps agree"),
        ((known, own), (), behind),  # training forward/fc is not of its places
        ((own, FOUND), (), None),
        ((own,), (ROWS[1],), None),
        ((), (), None),
    ):
        rows = [*ROWS, row("training forward", "fc", "undecided")]
        lines = [line for line in told(rows, findings, left=left) if line.startswith(words)]
        assert lines == ([words + expected] if expected else [])


def test_parts_have_the_worst_verdict_of_their_taps_in_all_precisions():
    lines = [" ".join(line.split()) for line in part_lines(ROWS)]
    assert lines == [
        "weights: equivalent, 1 taps",
        "forward pass: less precise, 1 of 3 taps, in float64 alone",
        "gradients: equivalent, 1 taps",
        "forward pass in training: different, 1 of 1 taps",
        "running statistics: undecided, 1 of 1 taps",
        "each module alone: equivalent, 1 taps",
    ]


def test_several_cases_have_lines_of_their_own():
    both = [replace(each, case=case) for case in ("small", "large") for each in ROWS]
    lines = list(part_lines(both))
    assert len(lines) == 12 and sum(line.startswith("large forward pass:") for line in lines) == 1
    assert [line.partition(":")[0] for line in part_lines(ROWS)][0] == "weights"


def test_the_place_where_it_begins_is_said_once_with_its_numbers():
    lines = told(limits=["onnx records no gradients"], left=[ROWS[7]])
    assert lines[-1] == (
        "verdict: different, begins at training forward/conv in float32: error 0.25, bound 5e-07; "
        "at (1, 2) it is 3, not 4"
    )
    assert lines[-2] == "limit: onnx records no gradients"
    assert lines[-3].startswith("not decided: 1 tap, first training statistics/bn.running_var")
    assert "1. another function: padding is 0" in lines[-4]
    assert sum("begins" in line for line in lines) == 1
    assert told(ROWS[:2], ())[-1] == "verdict: equivalent"


def test_an_error_without_meaning_is_left_out():
    bad = row("training", "random", "different", error=math.inf, reason="1 differ")
    assert (
        told([bad], ())[-1] == "verdict: different, begins at training/random in float32: 1 differ"
    )


def test_more_findings_than_fit_are_counted():
    lines = told(findings=[FOUND] * 12)
    assert sum(line[:1].isdigit() for line in lines) == 9
    assert "and 3 more findings, in parity.json and on the page" in lines


@pytest.mark.parametrize(
    ("baseline", "counters", "line"),
    [
        (["forward/drop"], 0, "only in torch: forward/drop"),
        ([], 1, "only in torch: 1 counter"),
        ([], 20, "only in torch (20 taps, not compared): 20 counters"),
        (
            ["forward/drop"],
            20,
            "only in torch (21 taps, not compared): forward/drop, and 20 counters",
        ),
        (
            [f"forward/d{i}" for i in range(7)] + ["choices/relu", "training choices/relu"],
            3,
            "only in torch (12 taps, not compared): forward/d0, forward/d1, forward/d2, "
            "forward/d3, forward/d4, 2 more, 3 counters, and 2 choices",
        ),
        (
            [f"forward/d{i}" for i in range(7)],
            0,
            "only in torch (7 taps, not compared): forward/d0, forward/d1, forward/d2, forward/d3, "
            "forward/d4, and 2 more",
        ),
        (["training forward/conv"], 0, None),
    ],
)
def test_taps_of_one_side_are_folded(baseline, counters, line):
    counts = tuple(f"parameters/bn{i}.num_batches_tracked" for i in range(counters))
    lines = told(one_sided=OneSided((*baseline, *counts), (), counts))
    assert [each for each in lines if each.startswith("only in")] == ([line] if line else [])


def test_the_page_says_where_it_begins_and_its_limits_and_notes():
    pytest.importorskip("jinja2", reason="the report extra is not installed")
    names = {"forward/c": "forward/conv"}
    notes = ["bias is not used"]
    remarks = Remarks("forward/conv in float32", ["jax records no update"], notes, names)
    page = page_text(ROWS, {}, remarks=remarks)
    assert "It begins at forward/conv in float32." in page
    assert "<li>Limit: jax records no update.</li>" in page
    assert "<li>Note: bias is not used.</li>" in page
    found = json.loads(json_text(ROWS, {}, remarks=remarks))
    assert [found[key] for key in ("begins", "limits", "notes", "names")] == [
        *vars(remarks).values()
    ]
    assert "Limits and notes" not in page_text(ROWS, {})


def test_the_page_shows_each_finding_once():
    pytest.importorskip("jinja2", reason="the report extra is not installed")
    counts = ("parameters/a.num_batches_tracked", "parameters/b.num_batches_tracked")
    other = replace(
        FOUND, causes=(("first", "one"), ("second", "two")), text="somewhere", places=()
    )
    page = page_text(ROWS, {}, [FOUND, other], (), OneSided(counts, (), counts))
    assert page.count("padding is 0 (conv, Conv in lib/conv.py:7)") == 1
    assert "1. another function: padding, training forward/conv" in page
    assert page.count("<li>") == 2 and "<strong>second</strong>: two" in page
    assert "2 taps show it or follow from it" in page and "2 places" in page
    assert "counters: num_batches_tracked" in page and "a.num_batches_tracked" not in page

"""The audit of Jittor's models: no finding without an entry, and no entry that prints otherwise."""

from dataclasses import replace

from parity.diagnose.upstream import load_entries
from tools.jittor_models import reproductions
from tools.jittor_models.page import Audit, page_text, unknown_findings
from tools.jittor_models.reproductions import confirm

ENTRIES = load_entries()
FINDING = {
    "kind": "another function",
    "text": "the running variance follows the biased variance, " + "in 20 batch norms " * 12,
    "stage": "training statistics",
    "tap": "bn1.running_var",
    "causes": [["biased", "..."]],
    "source": "jittor/nn.py:671",
    "explained": ["a", "b"],
}
STAGES = [
    {"stage": "forward", "precision": "float32", "counts": {"equivalent": 60, "vacuous": 1}},
    {"stage": "forward", "precision": "float64", "counts": {"different": 60}},
    {
        "stage": "training statistics",
        "precision": "float32",
        "counts": {"equivalent": 20, "different": 20},
    },
]


def audit_of(*findings, error=""):
    report = {
        "stages": STAGES,
        "findings": findings,
        "environment": {"torch": {"version": "2.13"}},
        "verdict": "different",
        "sentence": "different: 2 taps.",
        "counts": {"different": 2},
    }
    return Audit.of("resnet18", {} if error else report, error, 7)


def test_a_finding_without_an_entry_is_a_problem():
    known, other = audit_of(FINDING), audit_of(FINDING | {"causes": [["eps", "..."]]})
    assert unknown_findings([known], ENTRIES) == []
    assert (
        "no entry of upstream.yaml for: another function" in unknown_findings([other], ENTRIES)[0]
    )


def test_a_model_that_was_not_compared_is_a_problem():
    assert "no such module" in unknown_findings([audit_of(error="no such module")], ENTRIES)[0]
    shapes = audit_of(error="head.weight has shape (3, 2), the baseline's has (2, 2); and more")
    assert [finding["kind"] for finding in shapes.findings] == ["other structure"]


def test_the_page_counts_float32_and_wraps_its_text():
    text = page_text([audit_of(FINDING)], ENTRIES)
    row = next(line for line in text.splitlines() if line.startswith("| resnet18"))
    assert "| 61 equal |" in row and "20 different of 40" in row
    assert "[running-variance](#running-variance)" in row
    assert "Seen in: resnet18." in text
    plain = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, plain)) <= 120
    assert (
        "\n   norms" in text or "\n   batch" in text or "\n   in 20" in text
    )  # one item, indented


def test_an_entry_whose_lines_print_something_else_is_a_problem(monkeypatch):
    monkeypatch.setattr(reproductions, "SETUP", {"jittor": "", "pytorch": ""})
    plain = {"jittor": "print(1)", "jittor_prints": "1", "pytorch": "print(2)"}
    right = replace(ENTRIES[0], **plain, pytorch_prints="2")
    assert confirm(right) == []
    (problem,) = confirm(replace(right, pytorch_prints="3"))
    assert "prints '2', expected '3'" in problem
    (problem,) = confirm(replace(right, jittor="raise ValueError('gone')"))
    assert "gone" in problem


def test_entries_are_whole():
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES) >= 12
    for entry in ENTRIES:
        place, _, line = entry.source.rpartition(":")
        assert place.startswith("jittor/") and line.isdigit(), entry.id
        assert entry.jittor_prints != entry.pytorch_prints, entry.id
        assert len(entry.jittor.splitlines()) <= 4, entry.id

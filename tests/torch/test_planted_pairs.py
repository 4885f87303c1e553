"""A few of the faults of tools/planted_pairs: caught, placed and named, and nothing else."""

import pytest

pytest.importorskip("torch")

from tools.planted_pairs.faults import ALL
from tools.planted_pairs.trying import Outcome, try_pair


@pytest.mark.parametrize(
    "name",
    [
        "variance-biased-mobile",
        "dropout-in-evaluation-block",
        "mask-shape-function",
        "output-padding-zeros",
        "bias-missing-linear",
        "other-names",
    ],
)
def test_the_answer_is_right(name, tmp_path):
    outcome = try_pair(name, tmp_path)
    assert outcome.right, outcome.text
    assert (tmp_path / name / "answer.txt").read_text(encoding="utf-8").startswith(outcome.text)


def test_an_answer_without_its_finding_is_not_right():
    entry = ALL["gelu-tanh"]
    wrong = Outcome(entry, "equivalent", (), "", 0.0)
    assert not wrong.caught and not wrong.placed and not wrong.right
    control = Outcome(ALL["clean-conv"], "different", (), "", 0.0)
    assert not control.caught and not control.right

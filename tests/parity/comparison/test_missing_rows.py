"""An output that is not returned and a parameter without gradient are differences by themselves."""

from pathlib import Path

import numpy as np
import pytest

from parity.api import compare_traces, explained
from parity.comparison.trace import Trace
from parity.report.answer import answer_lines

ONE = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
BOTH = (
    *("parameters/w", "parameters/b", "forward/layer", "forward/output", "forward/output.1"),
    *("losses/loss", "gradients/w", "gradients/b", "gradients/input:x", "isolated gradients/b"),
)


def trace(name, *without, settings=None, kind="pass", operation="batch_norm"):
    facts = {"operation": operation, "module": "Norm", "settings": settings or {}}
    manifest = {
        "producer": {"name": name, "version": "1", "device": "cpu"},
        "precision": "float32",
        "subject": {},
        "variant": None,
        "kind": kind,
        "operations": {"forward/layer": facts},
    }
    held = {tap: ONE for tap in BOTH if tap not in without}
    return Trace(Path(f"{name}-{len(without)}.npz"), manifest, held)


def bad(*pair):
    return {
        f"{row.stage}/{row.tap}": row.verdict
        for row in compare_traces(pair).rows
        if row.verdict != "equivalent"
    }


@pytest.mark.parametrize("tap", ["forward/output.1", "gradients/b", "gradients/input:x"])
def test_what_the_candidate_lacks_is_different(tap):
    comparison = compare_traces([trace("a"), trace("b", tap)])
    assert bad(trace("a"), trace("b", tap)) == {tap: "different"}
    result = explained(comparison)
    assert result.verdict == "different" and len(result.findings) == 1
    text = "\n".join(answer_lines(result, comparison.rows, comparison.one_sided))
    assert "only in" not in text and f"begins at {tap}" in text


def test_an_output_that_the_candidate_adds_is_different():
    assert bad(trace("a", "forward/output.1"), trace("b")) == {"forward/output.1": "different"}


@pytest.mark.parametrize(
    "without",
    [
        ("forward/layer",),  # other modules
        ("isolated gradients/b",),  # a module that did not run alone
        ("parameters/b", "gradients/b"),  # a parameter that is fused, or not there
        ("gradients/w", "gradients/b", "gradients/input:x"),  # a framework without gradients
        ("forward/output", "forward/output.1"),  # a framework that lacks this mode
    ],
)
def test_other_taps_of_one_side_have_no_verdict(without):
    assert bad(trace("a"), trace("b", *without)) == {}


def test_gradients_that_the_candidate_adds_have_no_verdict():
    """The baseline does not train it."""
    assert bad(trace("a", "gradients/b"), trace("b")) == {}


def test_settings_that_no_tap_shows_are_undecided():
    one, other = trace("a", settings={"momentum": 0.1}), trace("b", settings={"momentum": 0.9})
    assert bad(one, other) == {"settings/layer": "undecided"}
    result = explained(compare_traces([one, other]))
    assert result.verdict == "undecided" and not result.open
    assert [finding.code for finding in result.findings] == ["settings"]
    assert bad(one, trace("b", settings={"momentum": 0.1})) == {}
    assert bad(one, trace("b", settings={"momentum": 0.9}, operation="folded norm")) == {}
    alone = [
        trace(name, settings=own, kind="isolated") for name, own in (("a", {"p": 1}), ("b", {}))
    ]
    assert bad(*alone) == {}

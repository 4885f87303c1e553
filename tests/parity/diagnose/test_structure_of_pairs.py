"""Settings that differ, and what one side lacks: each is said once, with the right noun."""

from dataclasses import replace

import numpy as np
import pytest

from parity import compare_traces, record_taps
from parity.api import explained
from parity.comparison.verdict import OneSided
from parity.diagnose.causes.facts import Operation
from parity.diagnose.structure import one_sided_findings, setting_difference

X = np.random.default_rng(6).standard_normal((5, 4)).astype(np.float32)


def compared(tmp_path, settings, factor=1.0):
    """The comparison of a batch norm with a dense layer behind it, and the candidate's changes."""
    files = []
    for name, changes, scale in (("ours", {}, 1.0), ("theirs", settings, factor)):
        norm = {"operation": "batch_norm", "reads": ["inputs/n"], "params": []}
        norm["settings"] = {"eps": 1e-5, "momentum": 0.1} | changes
        facts = {"precision": "float32", "device": "cpu", "threads": 1, "framework": name}
        facts |= {"operations": {"forward/n": norm}, "version": "1", "settings": {}}
        y = X * np.float32(scale)
        taps = {"inputs/n": X, "forward/n": y, "forward/output": y @ X.T}
        files.append(tmp_path / f"{name}.npz")
        record_taps(files[-1], taps, weights={}, inputs={"x": X}, **facts)
    return compare_traces(files)


def test_settings_that_are_not_the_cause_are_printed(tmp_path):
    (found,) = explained(compared(tmp_path, {"momentum": 0.9}, factor=1.5)).findings
    assert found.text.startswith("the candidate = 1.5 · the baseline (n")
    assert "the settings: batch_norm with momentum 0.9 instead of 0.1;" in found.text


def test_settings_without_a_tap_are_a_finding(tmp_path):
    (found,) = explained(compared(tmp_path, {"momentum": 0.9})).findings
    assert found.text.startswith("batch_norm with momentum 0.9 instead of 0.1 (first n)")


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("dropout", "dropout with p 0.5 instead of 0.1"), ("lp pool", "")],
)
def test_p_is_a_rate_of_dropout_alone(operation, expected):
    sides = [Operation(operation, settings={"p": p, "training": p > 0.2}) for p in (0.1, 0.5)]
    assert setting_difference(*sides) == expected


def test_what_a_side_lacks_has_the_right_noun(tmp_path):
    rows = compared(tmp_path, {}).rows
    taps = ["parameters/ema", "training statistics/ema", "parameters/w", "gradients/w"]
    (found,) = one_sided_findings(rows, OneSided(tuple(taps)), [])
    assert found.text.startswith("the candidate lacks 1 buffer and 1 parameter (first ema)")
    (found,) = one_sided_findings(rows, OneSided((), ("parameters/table",)), [])
    assert found.text.startswith("the candidate has 1 weight that the baseline lacks")
    lost = OneSided(("gradients/input:x", "gradients/w"))
    (found,) = one_sided_findings([replace(rows[0], stage="gradients")], lost, [])
    assert found.text.startswith("no gradient reaches 1 input and 1 parameter (first input:x)")

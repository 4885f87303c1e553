"""Weights that are unequal at the start: what shows in their numbers is the finding."""

import numpy as np
import pytest

from parity import compare_traces, record_taps
from parity.api import explained
from parity.errors import ParityError

RNG = np.random.default_rng(8)
WEIGHTS = {
    "conv.weight": RNG.standard_normal((6, 3, 5, 5)),
    "one.weight": RNG.standard_normal((7, 7)),
    "two.weight": RNG.standard_normal((7, 7)),
    "norm.running_var": RNG.uniform(0.5, 1.5, 7),
    "bias": RNG.standard_normal(7),
}
WEIGHTS = {name: value.astype(np.float32) for name, value in WEIGHTS.items()}
X = RNG.standard_normal((4, 7)).astype(np.float32)
OPERATIONS = {
    "forward/one": {"operation": "linear", "reads": [], "params": ["one.weight"]},
    "forward/two": {"operation": "linear", "reads": ["forward/one"], "params": ["two.weight"]},
}
FAULTS = {
    "zeros": ("bias", np.zeros_like),
    "constant": ("norm.running_var", np.ones_like),
    "reversed": ("conv.weight", lambda w: np.flip(w, 1)),
    "exchanged": ("two.weight", lambda w: WEIGHTS["one.weight"]),
    "scaled": ("conv.weight", lambda w: w * np.float32(0.5)),
    "transposed": ("one.weight", np.transpose),
    "numbers": ("bias", lambda w: w + np.eye(1, 7, 3, dtype=np.float32)[0]),
}
SENTENCES = {
    "zeros": "all zero in the candidate: not loaded? (bias (7,))",
    "constant": "1 everywhere in the candidate: not loaded? (norm.running_var (7,))",
    "reversed": "reversed along axis 1, as if RGB were BGR (conv.weight (6, 3, 5, 5))",
    "exchanged": "has the numbers of one.weight (two.weight (7, 7))",
    "scaled": "0.5 times as large in the candidate (conv.weight (6, 3, 5, 5))",
    "transposed": "transposed in the candidate, whose module computes with it as it is (one.weight",
    "numbers": "1 of 7 numbers differ; greatest difference 1 at (3,)",
}


@pytest.fixture
def recorded(tmp_path):
    """A function that records a side from some weights; all sides claim the same ones."""

    def record(name, weights, claimed=WEIGHTS, stored=None):
        one = X @ weights["one.weight"].T
        taps = {f"parameters/{n}": np.ascontiguousarray(w) for n, w in (stored or weights).items()}
        taps |= {"forward/one": one, "forward/two": one @ weights["two.weight"].T}
        facts = {"precision": "float32", "device": "cpu", "threads": 1, "operations": OPERATIONS}
        path = tmp_path / f"{name}.npz"
        about = {"inputs": {"x": X}, "settings": {}, "framework": name, "version": "1"}
        record_taps(path, taps, weights=claimed, **about, **facts)
        return path

    return record


def changed(*faults):
    weights = dict(WEIGHTS)
    for fault in faults:
        name, change = FAULTS[fault]
        weights[name] = np.ascontiguousarray(change(WEIGHTS[name]))
    return weights


@pytest.mark.parametrize("fault", FAULTS)
def test_each_difference_is_told(recorded, fault):
    pair = [recorded("a", WEIGHTS), recorded("b", changed(fault))]
    (found, *more) = explained(compare_traces(pair)).findings
    assert (found.kind, found.code, found.shown_by) == ("other state", "state", "state")
    assert found.text.startswith(SENTENCES[fault]) and not more
    assert f"parameters/{FAULTS[fault][0]}" in found.explained


def test_two_kinds_are_two_findings_and_one_kind_is_one(recorded):
    zeros = {name: np.zeros_like(w) for name, w in changed("reversed").items() if w.ndim == 1}
    pair = [recorded("a", WEIGHTS), recorded("b", changed("reversed") | zeros)]
    found = explained(compare_traces(pair)).findings
    assert [len(each.places) for each in found] == [1, 2]
    assert "in 2 parameters (first norm.running_var (7,)" in found[1].text


def test_a_transposed_parameter_of_a_right_module_is_a_layout(recorded):
    stored = WEIGHTS | {"one.weight": WEIGHTS["one.weight"].T}
    pair = [recorded("a", WEIGHTS), recorded("b", WEIGHTS, stored=stored)]
    (found,) = explained(compare_traces(pair)).findings
    assert (found.kind, found.code) == ("other structure", "layout")
    assert "add to layouts: `one\\.weight: (in, out)`" in found.text


def test_recordings_that_say_they_start_from_other_weights_are_refused_by_their_numbers(recorded):
    other = changed("reversed", "zeros")
    pair = [recorded("a", WEIGHTS), recorded("b", other, claimed=other)]
    with pytest.raises(ParityError, match=r"3 of 5 parameters equal; conv.weight .*RGB were BGR"):
        compare_traces(pair)

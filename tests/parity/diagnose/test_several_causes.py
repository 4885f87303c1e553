"""A small fault does not hide a far larger one behind it."""

from dataclasses import replace

import numpy as np
import pytest

from parity import compare_traces, record_taps
from parity.api import explained
from parity.comparison.verdict import Row
from parity.diagnose.faults import Fault, explained_by
from parity.diagnose.reach import Pass
from parity.diagnose.sizes import Size
from parity.diagnose.stages import place_of

RNG = np.random.default_rng(4)
NAMES = ("one", "two", "three", "four")
WEIGHTS = {name: RNG.standard_normal((6, 6)).astype(np.float32) for name in NAMES}
X = RNG.standard_normal((5, 6)).astype(np.float32)
COTANGENT = RNG.standard_normal((5, 6)).astype(np.float32)
OPERATIONS = {
    f"forward/{name}": {"operation": "linear", "reads": [f"inputs/{name}"], "params": [name]}
    for name in NAMES
}


def computed(before=None, loss=1.0, gradient=None):
    """Taps of dense layers. `before`, `gradient`: module -> a change outside of modules before it,
    and a factor of the gradient by its output."""
    before, gradient, x, taps = before or {}, gradient or {}, X, {}
    for name in NAMES:
        x = taps[f"inputs/{name}"] = x * (1 + np.float32(before.get(name, 0)) * np.sin(7 * x))
        x = taps[f"forward/{name}"] = x @ WEIGHTS[name].T
    taps["losses/loss"] = np.float32(loss * (x * COTANGENT).sum())
    g = np.float32(loss) * COTANGENT
    for name in NAMES[::-1]:
        g = taps[f"backward/d/{name}"] = g * np.float32(gradient.get(name, 1.0))
        taps[f"gradients/{name}"] = g.T @ taps[f"inputs/{name}"]
        g = g @ WEIGHTS[name]
    return taps


@pytest.fixture
def findings(tmp_path):
    """A function: the findings of a candidate that computes so."""

    def found(**faults):
        files = []
        for name, taps in (("ours", computed()), ("theirs", computed(**faults))):
            facts = {"precision": "float32", "device": "cpu", "threads": 1}
            facts |= {"operations": OPERATIONS, "framework": name, "version": "1"}
            files.append(tmp_path / f"{name}.npz")
            record_taps(files[-1], taps, weights=WEIGHTS, inputs={"x": X}, settings={}, **facts)
        return explained(compare_traces(files)).findings

    return found


def test_a_far_larger_error_is_another_finding(findings):
    first, second = findings(before={"two": 5e-4, "four": 0.3})
    assert (first.place, second.place) == ("inputs/four", "inputs/two")  # the larger comes first
    assert {"forward/four", "losses/loss"} <= set(first.explained)
    assert "inputs/three" in second.explained


def test_another_loss_and_another_gradient_show_behind_a_small_fault(findings):
    assert "losses/loss" in {each.place for each in findings(before={"two": 5e-4}, loss=-1.0)}
    found = findings(before={"four": 5e-4}, gradient={"two": 1.8})
    assert [each.place for each in found if each.direction == "backward"] == ["backward/d/two"]


def test_an_error_of_one_size_is_one_finding(findings):
    (found,) = findings(before={"two": 0.3, "four": 0.3})
    assert found.place == "inputs/two"


ROW = Row("", "forward", "a", "float32", "b : a", "different", 1e-5, 1e-7, 1e-7, 1e-6, 1e-7, 1e-5)


def test_what_a_size_brings():
    size = Size()
    size.add(ROW, shows=True)
    assert size.brings(replace(ROW, error=9e-4), "forward")
    assert not size.brings(replace(ROW, error=2e-3), "forward")
    # where the baseline's own noise grows as much, the error follows
    assert size.brings(replace(ROW, error=2e-2, noise_floor=1e-4), "forward")
    # ReLU takes the other side in some places
    assert size.brings(replace(ROW, error=2e-2), "gradients")
    assert not size.brings(replace(ROW, error=0.1), "gradients")
    # a row that another rule decided has no size that compares
    assert size.brings(replace(ROW, error=np.inf), "forward")
    assert size.brings(replace(ROW, error=5.0, reason="zero by structure"), "gradients")


@pytest.mark.parametrize(("second", "expected"), [(0.1, "two"), (1e-4, "one")])
def test_what_follows_from_two_faults_is_folded_behind_the_last_large_one(second, expected):
    order = {"one": 0, "two": 1, "three": 2}
    graph = Pass({False: [f"forward/{name}" for name in order]}, {}, order)
    faults = []
    for name, error in (("one", 0.3), ("two", second)):
        row = replace(ROW, tap=name, error=error)
        faults.append(Fault((name,), "another function", "", name, "", "place"))
        faults[-1].add(row, place_of(row.stage, row.tap), graph)
    found = explained_by(replace(ROW, tap="three", error=0.2), faults, graph)
    assert found and found.text == expected

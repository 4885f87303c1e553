"""Weights of one side alone are noted, and what a file of weights lacks; counters are not."""

import numpy as np
import pytest

from parity import Pair, Side
from parity.errors import ParityError
from parity.matching.declared import Declared
from parity.recording.weights import baseline_weights, candidate_names


def test_counters_without_a_partner_are_not_noted():
    side = Side("torch", lambda: None)
    pair = Pair(baseline=side, candidate=side, inputs={})
    both = [["fc.weight", [3, 4], "<f4", "parameter"]]
    extra = [["fc.bias", [3], "<f4", "parameter"], ["bn.num_batches_tracked", [], "<i8", "buffer"]]
    names, notes, guessed = candidate_names(pair, both + extra, both, Declared())
    assert guessed == {}
    assert names == {"fc.weight": "fc.weight"}
    assert notes == ["weights only in the baseline: fc.bias"]
    assert candidate_names(pair, both + extra[1:], both, Declared())[1] == []


STATE = [
    ["fc.weight", [3, 4], "<f4", "parameter"],
    ["bn.running_mean", [3], "<f4", "buffer"],
    ["bn.num_batches_tracked", [], "<i8", "buffer"],
]


def from_file(folder):
    side = Side("torch", lambda: None)
    return baseline_weights(Pair(side, side, inputs={}, weights="w.npz"), STATE, folder)


def test_a_file_of_weights_that_lacks_a_buffer_or_has_more_is_noted(tmp_path):
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.ones((3, 4)), "model.fc.bias": np.ones(3)})
    arrays, notes = from_file(tmp_path)
    assert list(arrays) == ["fc.weight"]
    assert [note.partition("w.npz: ")[2] for note in notes] == [
        "the baseline has no such arrays, they are not used: model.fc.bias",
        "no such arrays, the baseline keeps its own: bn.running_mean",
    ]
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.ones((3, 4)), "bn.running_mean": np.ones(3)})
    assert from_file(tmp_path)[1] == []


@pytest.mark.parametrize("damage", ["cut", "changed", "another file", "one array"])
def test_a_damaged_file_of_weights_is_told(tmp_path, damage):
    path = tmp_path / "w.npz"
    np.savez(path, **{"fc.weight": np.ones((3, 4))})
    content = path.read_bytes()
    if damage == "one array":
        np.save(tmp_path / "w.npy", np.ones(3))
        content = (tmp_path / "w.npy").read_bytes()
    elif damage == "changed":
        content = content[:150] + b"damaged" + content[157:]
    path.write_bytes(
        {"cut": content[:90], "another file": b"PK\x03\x04 no archive"}.get(damage, content)
    )
    with pytest.raises(ParityError, match="expected an .npz file of arrays"):
        from_file(tmp_path)

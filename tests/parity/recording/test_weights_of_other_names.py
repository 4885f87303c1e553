"""Weights with other names: equal shapes before the order, and a note on what is a guess."""

import pytest

from parity import Pair, Side
from parity.errors import ParityError
from parity.matching.declared import Declared
from parity.recording.weights import candidate_names, note_on_order

SIDE = Side("torch", lambda: None)
UP, DOWN, SQUARE = (12, 8), (8, 12), (8, 8)


def names_of(baseline, candidate, layouts=None):
    """Each side: name -> shape; the candidate's names -> the baseline's, and the notes."""
    states = [
        [[f"{name}.weight", list(shape), "<f4", "parameter"] for name, shape in side.items()]
        for side in (baseline, candidate)
    ]
    pair = Pair(SIDE, SIDE, inputs={})
    names, notes, guessed = candidate_names(pair, *states, Declared({}, layouts or {}))
    notes += note_on_order(guessed)
    cut = {a.removesuffix(".weight"): b.removesuffix(".weight") for a, b in names.items()}
    return cut, notes


@pytest.mark.parametrize("order", ["w1 w2 w3", "w3 w2 w1", "w2 w1 w3"])
def test_a_kernel_of_exchanged_axes_is_no_partner(order):
    """LLaMA's MLP: `w2` goes down, wherever it is registered."""
    shapes = {"w1": UP, "w2": DOWN, "w3": UP}
    candidate = {name: shapes[name] for name in order.split()}
    names, notes = names_of({"gate": UP, "up": UP, "down": DOWN}, candidate)
    assert names["w2"] == "down" and {names["w1"], names["w3"]} == {"gate", "up"}
    assert "3 weights are paired by order alone" in notes[0] and "give `names`" in notes[0]


def test_a_shape_that_only_one_weight_has_is_no_guess():
    one, other = {"a.conv": (8, 3, 3, 3)}, {"a.conv": (8, 3, 3, 3)}
    names, notes = names_of(one | {"merge": (16, 24, 3, 3)}, other | {"fuse": (16, 24, 3, 3)})
    assert names["fuse"] == "merge" and notes == []
    more = one | {"merge": (16, 24, 3, 3), "third": (24, 16, 3, 3)}  # of one size
    names, notes = names_of(more, other | {"fuse": (16, 24, 3, 3)})
    assert names["fuse"] == "merge" and "fuse.weight is taken for merge.weight" in notes[1]


def test_in_every_block():
    ours = {
        f"layers.{i}.{n}": s for i in (0, 1) for n, s in zip("abc", (UP, UP, DOWN), strict=True)
    }
    theirs = {
        f"blocks.{i}.{n}": s for i in (0, 1) for n, s in zip("xyz", (UP, DOWN, UP), strict=True)
    }
    names, _ = names_of(ours, theirs)
    assert [names[f"blocks.{i}.y"] for i in (0, 1)] == ["layers.0.c", "layers.1.c"]


def test_layers_in_another_order():
    names, _ = names_of({"fc1": UP, "fc2": DOWN}, {"out": DOWN, "in_": UP})
    assert names == {"out": "fc2", "in_": "fc1"}


def test_query_key_and_value_by_their_letters():
    ours = dict.fromkeys("qkvo", SQUARE)
    names, notes = names_of(ours, dict.fromkeys(["wk", "wv", "wq", "wo"], SQUARE))
    assert names == {f"w{letter}": letter for letter in "qkvo"} and notes == []


def test_a_declared_layout_gives_the_shape():
    layouts = {".*": "(in, out)"}
    names, _ = names_of({"fc1": UP, "fc2": DOWN}, {"out": UP, "in_": DOWN}, layouts)
    assert names == {"out": "fc2", "in_": "fc1"}


def test_equal_names_of_exchanged_axes_are_told_by_name():
    with pytest.raises(ParityError, match=r"fc1.weight has shape \(8, 12\), the baseline's fc1"):
        names_of({"fc1": UP, "fc2": DOWN}, {"fc1": DOWN, "fc2": UP})

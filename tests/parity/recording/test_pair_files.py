"""Pair files: what they may say, and the message for each thing that they may not."""

import numpy as np
import pytest

from parity import Pair, Side, integers, normal, uniform
from parity.errors import ParityError
from parity.recording.draw import draw_inputs, draw_weight, drawn, ulp_moved, ulp_moved_fed
from parity.recording.pair import check_pair, load_pair


def build():
    return None


GOOD = {
    "baseline": Side("numpy", build),
    "candidate": Side("numpy", build),
    "inputs": {"x": normal(2, 3)},
}


def test_a_pair_needs_two_sides_and_inputs_only():
    pair = check_pair(Pair(**GOOD), "pair.py")
    assert pair.loss_of("candidate") == "projection" and pair.update["name"] == "sgd"
    assert pair.side("baseline") is GOOD["baseline"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"baseline": None}, "baseline: expected Side"),
        ({"candidate": Side("thorch", build)}, "candidate: framework: expected one of torch"),
        ({"candidate": Side("numpy", 3)}, "candidate: build: expected a function"),
        ({"candidate": Side("numpy", build, python=3)}, "candidate: python: expected the path"),
        ({"candidate": Side("numpy", build, replace=["Relu"])}, "candidate: replace: expected a d"),
        ({"candidate": Side("numpy", build, replace={"Relu": 3})}, "replace: expected a dict"),
        ({"candidate": Side("numpy", build, loss={})}, "candidate: loss: expected projection"),
        ({"inputs": {}}, "inputs: expected at least one"),
        ({"inputs": [normal(2, 3)]}, "inputs: expected a dict"),
        ({"inputs": {"x": "abc"}}, "inputs: x: expected normal"),
        ({"targets": [normal(2)]}, "targets: expected a dict"),
        ({"targets": {"y": 3}}, "targets: y: expected normal"),
        ({"targets": {"x": normal(2)}}, "targets: expected names that no input has, found .'x'"),
        ({"loss": "mse"}, "loss: expected projection"),
        ({"loss": ["mse"]}, "loss: expected projection"),
        ({"loss": "cross_entropy"}, "targets: expected targets=.'labels': integers"),
        (
            {"loss": "cross_entropy", "targets": {"labels": normal(2)}},
            "targets: labels: expected whole numbers",
        ),
        ({"names": [("a", "b")]}, "names: expected a dict: pattern -> text"),
        ({"names": ({"a": "b"},)}, "names: expected a dict"),
        ({"names": {"a": 1}}, "names: expected a dict"),
        ({"layouts": ({"a": "(in, out)"},)}, "layouts: expected a dict"),
        ({"modes": ("test",)}, "modes: expected some of eval, train"),
        ({"modes": ()}, "modes: expected some of eval, train"),
        ({"modes": "eval"}, "modes: expected some of eval, train"),
        ({"modes": 3}, "modes: expected some of eval, train"),
        ({"update": "sgd"}, "update: expected a dict or None"),
        ({"update": {"name": "rmsprop"}}, "update: expected a `name` among sgd, adamw"),
        ({"seed": -1}, "seed: expected a whole number, 0 or more, found -1"),
        ({"seed": 0.5}, "seed: expected a whole number"),
        ({"variants": -1}, "variants: expected a whole number, 0 or more"),
        ({"weights": {"w": np.zeros(3)}}, "weights: expected an .npz file"),
        ({"weights": "w.npy"}, 'weights: expected an .npz file, "built" or None, found .w.npy'),
        ({"float64": 1}, "float64: expected True or False"),
        ({"tag": 3}, "tag: expected text"),
    ],
)
def test_a_wrong_field_is_named(fields, words):
    with pytest.raises(ParityError, match=words):
        check_pair(Pair(**{**GOOD, **fields}), "pair.py")


def test_a_shape_may_be_one_tuple():
    assert normal((2, 4)) == normal(2, 4) == normal([2, 4]) and normal().shape == ()
    assert uniform(0, 1, (5,)) == uniform(0, 1, 5) and integers(3, (2,)) == integers(3, 2)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        ("integers(0, 3)", r"integers\(high, .*high of 1 or more, found 0; .* \(at pair.py:2\)"),
        ("integers(2.5, 3)", "high of 1 or more, found 2.5"),
        ("normal(2, 3.5)", "normal: shape: expected whole numbers of 1 or more, found 2, 3.5"),
        ("normal((2, 3), 4)", "normal: shape: expected whole numbers"),
        ("normal(2, 0)", "normal: shape: expected whole numbers of 1 or more, found 2, 0"),
        ("uniform(1, 1, 3)", "uniform.*expected low < high, found 1, 1"),
        ("uniform((2, 3), 1)", "uniform.*expected low < high"),
    ],
)
def test_a_wrong_draw_is_told_with_its_line(tmp_path, draw, words):
    path = tmp_path / "pair.py"
    path.write_text(f"from parity import integers, normal, uniform\nx = {draw}\n", encoding="utf-8")
    with pytest.raises(ParityError, match=words):
        load_pair(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such pair file"),
        ("x = 1", "found no `pair`"),
        ("pair = 3", "expected `pair = Pair"),
        (
            "import no_such_module_here",
            "ModuleNotFoundError.*pair.py:1.*import frameworks in the builders",
        ),
        ("x = 1\ny = (", "SyntaxError"),
        (
            "from parity import Pair\npair = Pair(layout={})",
            "'layout' .*do you mean `layouts`.; the fields of Pair are baseline, candidate, ",
        ),
        (
            "from parity import Side\nSide(pyhton='p')",
            "do you mean `python`.; the fields of Side are framework, build, ",
        ),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, words):
    path = tmp_path / "pair.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ParityError, match=words):
        load_pair(path)


def test_a_pair_file_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "models_beside.py").write_text("def build():\n    return None\n", encoding="utf-8")
    path = tmp_path / "pair.py"
    path.write_text(
        "from parity import Pair, Side, normal\nfrom models_beside import build\n"
        'pair = Pair(Side("numpy", build), Side("numpy", build), {"x": normal(2)})\n',
        encoding="utf-8",
    )
    assert load_pair(path).inputs["x"] == normal(2)


def test_draws_depend_on_seed_and_name_alone():
    draws = {"x": normal(4, 3), "y": normal(4, 3), "n": integers(5, 7), "u": uniform(2, 3, 9)}
    arrays = draw_inputs(draws, 1)
    again = draw_inputs({"y": normal(4, 3)}, 1)
    np.testing.assert_array_equal(arrays["y"], again["y"])
    assert not np.array_equal(arrays["x"], arrays["y"])
    assert not np.array_equal(arrays["y"], draw_inputs(draws, 2)["y"])
    assert arrays["x"].dtype == np.float32 and arrays["n"].dtype == np.int64
    assert set(arrays["n"]) <= set(range(5)) and arrays["u"].min() >= 2 and arrays["u"].max() < 3


def test_weights_keep_the_size_of_activations():
    """A chain of twenty drawn layers with ReLU: the numbers neither vanish nor overflow."""
    x = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    for number in range(20):
        weight = draw_weight(0, f"layer{number}.weight", (64, 64))
        x = np.maximum(x @ weight.T + draw_weight(0, f"layer{number}.bias", (64,)), 0)
    assert 0.1 < x.std() < 10
    for name in ("norm.weight", "norm.running_var", "ls.gamma"):
        values = draw_weight(0, name, (500,))
        assert values.min() >= 0.5 and values.max() < 1.5 and len(set(values)) > 400
    for name in ("bias", "in_proj_bias", "beta", "bn.running_mean"):
        assert abs(draw_weight(0, name, (500,)).std() - 0.1) < 0.02


def test_tables_of_embeddings_are_smaller_than_kernels():
    kernel, table = (draw_weight(0, "emb.weight", (300, 4), table) for table in (False, True))
    assert kernel.std() > 0.6 and abs(table.std() - 0.1) < 0.02


@pytest.mark.parametrize(
    ("name", "dtype", "kind", "expected"),
    [
        ("conv.weight", "f4", "parameter", True),
        ("bn.running_var", "f4", "buffer", True),
        ("bn.num_batches_tracked", "i8", "buffer", False),
        ("attn.mask", "f4", "buffer", False),
        ("attn.relative_position_index", "i8", "buffer", False),
    ],
)
def test_tables_and_counters_stay_as_they_were_built(name, dtype, kind, expected):
    assert drawn(name, np.zeros(2, dtype), kind) is expected


def test_a_variant_moves_every_number_by_its_last_place():
    weights = {"b": np.ones(50, "f4"), "a": np.full(50, 2.0), "n": np.arange(3)}
    moved = ulp_moved(weights, "ulp:2")
    assert list(moved) == list(weights) and moved["n"] is weights["n"]
    for name, unit in (("b", 2.0**-23), ("a", 2.0**-51)):
        step = np.abs(moved[name] - weights[name])
        assert ((step > 0) & (step <= unit)).all() and moved[name].dtype == weights[name].dtype
    other = ulp_moved(weights, "ulp:3")
    assert not np.array_equal(moved["b"], other["b"])


def test_what_is_fed_keeps_its_zeros():
    """A zero behind a ReLU that became 1e-45 would pass the next ReLU."""
    value = np.array([0.0, 1.0, 0.0, -2.0], "f4")
    moved = ulp_moved_fed(value, "ulp:1", "x")
    assert (moved[value == 0] == 0).all() and (moved[value != 0] != value[value != 0]).all()

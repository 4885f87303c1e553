"""The recorder's adapter for Jittor, on small models that a child process records."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.comparison.trace import read_trace

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jittor") is None, reason="jittor is not installed"
)
NETS = Path(__file__).with_name("parity_nets.py")
ROOT = NETS.parents[2]
LR, DECAY = 0.1, 0.01  # of the update in parity_nets.py


class Recorded:
    """The taps and facts of one precision."""

    def __init__(self, folder, precision):
        command = [sys.executable, str(NETS), str(folder), precision]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        self.folder = folder
        self.facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.taps = self.load("Everything")

    def load(self, name):
        with np.load(self.folder / f"{name}.npz") as stored:
            return {tap: stored[tap] for tap in stored.files}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return Recorded(tmp_path_factory.mktemp("float32"), "float32")


@pytest.fixture(scope="module")
def recorded64(tmp_path_factory):
    return Recorded(tmp_path_factory.mktemp("float64"), "float64")


def stage(taps, name):
    return [tap.partition("/")[2] for tap in taps if tap.startswith(f"{name}/")]


def test_every_leaf_is_a_tap(recorded):
    assert stage(recorded.taps, "forward") == [
        "conv", "norm", "relu", "relu#2", "pool", "drop", "head.0", "head.1", "frozen",
        "output", "output.1.extra",
    ]  # fmt: skip


def test_a_change_in_place_does_not_reach_the_tap(recorded):
    taps = recorded.taps
    assert np.array_equal(taps["forward/relu"], np.maximum(taps["forward/norm"], 0))
    np.testing.assert_allclose(taps["inputs/relu#2"], taps["forward/relu"] - 1, atol=1e-5)


def test_gradients_in_evaluation_mode(recorded):
    taps, ones = recorded.taps, np.ones((5, 5), np.float32)
    weight = taps["parameters/frozen.weight"]
    slope = taps["backward/d/frozen"] @ weight
    np.testing.assert_allclose(taps["backward/d/head.1"], slope, rtol=1e-5)
    expected = slope.T @ taps["forward/head.0"]
    np.testing.assert_allclose(taps["gradients/head.1.weight"], expected, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(weight, ones)  # loaded, although its gradient is stopped
    assert "gradients/conv.weight" in taps
    assert "gradients/input:x" in taps


@pytest.mark.parametrize("words", ["", "training "])
def test_what_the_loss_does_not_reach_has_no_gradient(recorded, words):
    names = stage(recorded.taps, f"{words}gradients")
    assert "head.1.bias" in names
    assert not {"unused.weight", "unused.bias", "frozen.weight"} & set(names)


def test_the_update_is_jittors_own(recorded):
    """Jittor's SGD decays a parameter without a gradient, but not one whose gradient is stopped."""
    taps = recorded.taps
    weight = taps["parameters/unused.weight"].astype(np.float64)
    np.testing.assert_allclose(
        taps["one update/step/unused.weight"], -LR * DECAY * weight, rtol=1e-3
    )
    assert not taps["one update/step/frozen.weight"].any()
    head = taps["parameters/head.1.weight"].astype(np.float64)
    expected = -LR * (taps["training gradients/head.1.weight"] + DECAY * head)
    np.testing.assert_allclose(
        taps["one update/step/head.1.weight"], expected, rtol=1e-3, atol=1e-5
    )


def test_running_statistics(recorded):
    """Jittor's running variance follows the biased one (nn.py:688), with momentum 0.1."""
    taps = recorded.taps
    x = taps["training forward/conv"].astype(np.float64)
    for name, now in (("mean", x.mean((0, 2, 3))), ("var", x.var((0, 2, 3)))):
        before = taps[f"parameters/norm.running_{name}"]
        found = taps[f"training statistics/norm.running_{name}"]
        np.testing.assert_allclose(found, 0.9 * before + 0.1 * now, rtol=1e-4)
    assert recorded.facts["state"]["norm.running_var"] == "buffer"
    assert recorded.facts["state"]["frozen.weight"] == "parameter"
    assert "_hidden" not in recorded.facts["state"]


def test_dropout_is_off_and_seen(recorded):
    taps = recorded.taps
    assert np.array_equal(taps["training forward/drop"], taps["training forward/pool"])
    assert recorded.facts["notes"] == []  # `nn.dropout` is off, too
    assert taps["training/random"]
    assert not taps["evaluation/random"]
    assert recorded.facts["made inside"] is False


def test_choices_of_kinks_and_no_others(recorded):
    """None of the norm's and softmax's maxima; functions are named after their container."""
    taps = recorded.taps
    for words in ("", "training "):
        found = stage(taps, f"{words}choices")
        assert found == ["relu", "relu#2", "pool", "model:clamp", "model:relu6"]
    assert np.array_equal(taps["choices/relu"], taps["forward/norm"] > 0)
    windows = taps["forward/relu#2"].reshape(2, 4, 3, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5)
    first = windows.reshape(2, 4, 3, 3, 4).argmax(-1)  # many windows are all zero
    rows, columns = np.meshgrid(np.arange(3), np.arange(3), indexing="ij")
    expected = (2 * rows + first // 2) * 6 + 2 * columns + first % 2
    assert np.array_equal(taps["choices/pool"], expected)
    assert recorded.facts["kinks"]["choices/model:clamp"]["corners"] == [0.25, 9.0]


def test_pool_gives_the_gradient_to_its_choice(recorded):
    taps = recorded.taps
    given, found = taps["backward/d/pool"], taps["backward/d/relu#2"].reshape(2, 4, -1)
    expected = np.zeros_like(found)
    np.put_along_axis(expected, taps["choices/pool"].reshape(2, 4, -1), given.reshape(2, 4, -1), 2)
    assert np.array_equal(found, expected)


def test_slopes_at_corners_are_those_of_the_choice(recorded):
    assert len(recorded.facts["slopes"]) == 7
    for kind, (slopes, chosen) in recorded.facts["slopes"].items():
        assert slopes == chosen, kind


def test_following_the_other_side_of_a_corner(recorded):
    free, followed = recorded.load("free"), recorded.load("followed")
    choice = next(tap for tap in free if tap.startswith("choices/"))
    assert not free[choice].any()
    assert np.array_equal(free["forward/output"], followed["forward/output"])
    assert np.array_equal(followed[choice], free[choice])  # always the recording's own
    assert not free["gradients/input:x"].any()
    assert followed["gradients/input:x"].all()


def test_a_builder_that_calls_eval_stops_no_gradient(recorded):
    taps = recorded.load("evaluated")
    assert "gradients/linear.weight" in taps
    assert "training gradients/linear.weight" in taps
    assert "gradients/linear.bias" not in taps


def test_a_leaf_that_returns_its_input_has_a_gradient_of_its_own(recorded):
    taps = recorded.load("evaluated")
    total = taps["backward/d/same"] * 2  # of the product of two equal factors
    np.testing.assert_allclose(taps["backward/d/linear"], total, rtol=1e-6)


def test_every_pass_starts_from_the_built_model(recorded):
    """A flag, a hidden array and a buffer that is not saved are as the builder made them."""
    taps = recorded.load("flagged")
    for words in ("", "training "):
        expected = taps["inputs/model"] * taps["parameters/weight"] + 1
        np.testing.assert_allclose(taps[f"{words}forward/output"], expected, rtol=1e-6)
    np.testing.assert_array_equal(taps["training statistics/average"], np.ones(4))


def test_a_script_records_its_own_model(recorded):
    assert recorded.facts["script"]["unchanged"]
    assert "pair file" in recorded.facts["script"]["refused"]
    assert not (recorded.folder / "script64.npz").exists()
    trace = read_trace(recorded.folder / "script.npz")
    assert trace.manifest["producer"]["name"] == "jittor"
    assert {"forward/linear", "gradients/linear.weight", "one update/step/linear.weight"} <= set(
        trace.taps
    )


def test_modules_in_a_plain_list_are_refused(recorded):
    assert "Listed.blocks is a list of modules" in recorded.facts["listed"]


def test_facts_of_layers(recorded):
    layers = {path: rest for path, *rest in recorded.facts["layers"]}
    expected = {
        "0": ("convolution", {"stride": [2, 2], "padding": [1, 0], "groups": 2}),
        "1": ("convolution", {"stride": [1], "padding": [1], "transposed": False}),
        "2": ("convolution", {"transposed": True, "output_padding": [1, 1]}),
        "3": ("layer_norm", {"eps": 1e-6, "axes": [-2, -1]}),
        "4": ("group norm", {"groups": 2, "eps": 1e-5}),
        "5": ("leaky relu", {"slope": 0.25}),
        "6": ("gelu", {"form": "exact"}),
        "7": ("mean pool", {"count_include_pad": False, "ceil_mode": True, "stride": [2, 2]}),
        "8": ("mean pool", {"kernel": [2, 2], "count_include_pad": True}),
        "9": ("adaptive mean pool", {"size": [None, 2]}),
        "10": ("upsample", {"mode": "bilinear", "align_corners": True}),
        "11": ("softmax", {"axis": 1}),
        "12": ("", {}),
    }
    assert set(layers) == set(expected)  # no pool inside a pool
    for path, (operation, settings) in expected.items():
        assert layers[path][1] == operation, path
        assert layers[path][2].items() >= settings.items(), path


def test_sources_are_the_lines_of_the_code(recorded):
    package = Path(importlib.util.find_spec("jittor").origin).parents[1]
    sources = [source for *_, source in recorded.facts["layers"]]
    sources = [source for source in sources if source.startswith("jittor/")]
    assert len(sources) == 12
    for source in sources:
        file, line = source.split(":")
        text = (package / file).read_text(encoding="utf-8").splitlines()
        assert text[int(line) - 1].strip().startswith(("def ", "@")), source
    assert recorded.facts["layers"][-1][-1].startswith("parity_nets.py:")


def test_float64_is_float64_everywhere(recorded, recorded64):
    taps = recorded64.taps
    floats = {tap: value for tap, value in taps.items() if value.dtype.kind == "f"}
    assert {str(value.dtype) for value in floats.values()} == {"float64"}
    loss = floats["losses/loss"]
    assert loss != np.float32(loss)  # not rounded on the way
    x, before = taps["training forward/conv"], taps["parameters/norm.running_mean"]
    mean = 0.9 * before + 0.1 * x.mean((0, 2, 3))  # 0.1 is no number of float32
    found = taps["training statistics/norm.running_mean"]
    np.testing.assert_allclose(found, mean, rtol=1e-14, atol=1e-15)
    for tap in ("forward/output", "gradients/conv.weight", "one update/step/conv.weight"):
        wide = floats[tap]
        error = np.abs(recorded.taps[tap] - wide).max() / np.abs(wide).max()
        assert 1e-9 < error < 1e-4, tap

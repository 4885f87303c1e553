"""A flax model against its PyTorch twin, right and with planted faults.

JAX may be in an environment of its own: `PARITY_JAX_PYTHON` is its interpreter.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from parity.api import explained
from parity.folder import compare_folder
from parity.recording.processes.runner import record_pair

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples/parity_jax"
INSTALLED = all(importlib.util.find_spec(name) for name in ("jax", "flax"))
PYTHON = os.environ.get("PARITY_JAX_PYTHON") or (sys.executable if INSTALLED else "")
BASELINE = ("torch",)
REASON = "jax and flax are not installed here, and PARITY_JAX_PYTHON is not set"
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason=REASON),
    pytest.mark.skipif(not all(map(importlib.util.find_spec, BASELINE)), reason="needs torch"),
]

PAIR = """
from parity import Pair, Side, normal

def baseline():
    from torch import nn
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=1),
    )

def candidate():
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Conv(6, (3, 3), (2, 2), padding={padding}, name="a")(x)
            x = nn.BatchNorm(not train, momentum=0.9, epsilon={epsilon}, name="b")(x)
            return nn.Conv(5, (3, 3), name="c")(nn.relu(x))

    return Net()

pair = Pair(
    Side("torch", baseline), Side("jax", candidate), {{"x": normal(2, 3, 6, 8)}},
    layouts={{"x": "channels last", "output": "channels last"}}, modes=("eval",), variants=2,
)
"""
ONE = "[(1, 1), (1, 1)]"
RECORDED = (
    "forward/norm2",
    "choices/model:relu#2",
    "choices/model:max_pool",
    "backward/d/conv1",
    "gradients/conv1.weight",
    "gradients/input:x",
    "training gradients/head.weight",
    "training statistics/norm1.running_mean",
    "one update/step/norm1.weight",
    "isolated backward/conv2",
)


def compared(path, out):
    recorded = record_pair(path, out, {"candidate": PYTHON}, say=lambda line: None)
    return recorded, compare_folder(out, recorded_layouts(recorded))[0]


def recorded_layouts(recorded):
    from parity.matching.declared import Declared

    return Declared(recorded.pair.names, recorded.pair.layouts, strict=False)


def with_fault(folder, padding=ONE, epsilon=1e-5):
    text = PAIR.format(padding=padding, epsilon=epsilon)
    (folder / "pair.py").write_text(text, encoding="utf-8")
    comparison = compared(folder / "pair.py", folder / "out")[1]
    found = [f"{r.stage}/{r.tap}" for r in comparison.rows if r.verdict == "different"]
    return comparison, found, " ".join(f.text for f in explained(comparison).findings)


def test_the_example_differs_in_the_running_variance_alone(tmp_path):
    _, comparison = compared(EXAMPLE / "pair.py", tmp_path)
    different = {f"{r.stage}/{r.tap}" for r in comparison.rows if r.verdict == "different"}
    statistics = {
        f"{s} statistics/norm{n}.running_var" for s in ("training", "isolated") for n in (1, 2)
    }
    assert different == statistics
    (finding,) = [f for f in explained(comparison).findings if f.explained]
    assert "biased variance" in finding.text and "normalization.py" in finding.text


def test_the_example_is_equivalent_behind_it(tmp_path):
    _, comparison = compared(EXAMPLE / "behind.py", tmp_path)
    assert comparison.verdict == "equivalent"
    taps = {f"{row.stage}/{row.tap} {row.precision}" for row in comparison.rows}
    for tap in RECORDED:
        assert f"{tap} float32" in taps and f"{tap} float64" in taps


def test_a_right_port_is_equivalent(tmp_path):
    assert with_fault(tmp_path)[0].verdict == "equivalent"


def test_the_other_end_of_same_padding_is_found_and_named(tmp_path):
    """flax pads a strided `SAME` convolution at the end; PyTorch's padding=1 is at both ends."""
    _, found, text = with_fault(tmp_path, padding="'SAME'")
    assert found[0] == "forward/0"
    assert "padding SAME instead of [1, 1]" in text


def test_an_epsilon_is_found_and_named(tmp_path):
    _, found, text = with_fault(tmp_path, epsilon=1e-3)
    assert found[0] == "forward/1"
    assert "0.001" in text


BLOCK = """
from parity import Pair, Side, normal

def baseline():
    from torch import nn
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

def candidate():
    import flax.linen as nn

    class DropoutBlock(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4, name="a")(x))
            return nn.Dense(2, name="b")(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return DropoutBlock(name="block")(x, train)

    return Net()

pair = Pair(
    Side("torch", baseline), Side("jax", candidate), {"x": normal(5, 3)}, variants=1,
    float64=False, names={r"block\\.a\\.(.+)": r"0.\\1", r"block\\.b\\.(.+)": r"1.\\1"},
)
"""


def test_a_block_named_after_dropout_runs_in_training(tmp_path):
    (tmp_path / "pair.py").write_text(BLOCK, encoding="utf-8")
    comparison = compared(tmp_path / "pair.py", tmp_path / "out")[1]
    taps = {f"{r.stage}/{r.tap}": r.verdict for r in comparison.rows}
    assert taps["training forward/output"] == "equivalent"

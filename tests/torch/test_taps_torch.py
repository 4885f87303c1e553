"""What has a tap: modules with the recorder's own names, dataclasses, models without weights."""

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from parity import read_trace  # noqa: E402
from parity.errors import ParityError  # noqa: E402
from parity.recording.processes.runner import record_pair  # noqa: E402
from parity.torch import record  # noqa: E402

X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
SGD = {"name": "sgd", "lr": 0.1}
BOTH = {"modes": ("eval", "train"), "update": SGD}


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.output = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 2), nn.ReLU())

    def forward(self, x):
        y = self.output(self.model(x))
        return y * 3, y * 5


def trace_of(tmp_path, model, inputs=None, **options):
    notes = record(tmp_path / "a.npz", model, inputs or {"x": X}, **options)
    return read_trace(tmp_path / "a.npz"), notes


def test_modules_may_have_the_names_of_the_recorder(tmp_path):
    trace, _ = trace_of(tmp_path, Named())
    taps = trace.taps
    forward = [name for name in taps if name.startswith("forward/")]
    assert forward == [
        "forward/(model)", "forward/(output).0", "forward/(output).1", "forward/output",
        "forward/output.1",
    ]  # fmt: skip
    relu = taps["forward/(output).1"]
    np.testing.assert_array_equal(taps["forward/output"], 3 * relu)
    np.testing.assert_array_equal(taps["forward/output.1"], 5 * relu)
    assert trace.manifest["operations"]["forward/(output).0"]["operation"] == "linear"
    assert "forward/output" not in trace.manifest["operations"]


@dataclass(frozen=True)
class Pieces:
    logits: torch.Tensor
    name: str = "pieces"


class Leaf(nn.Module):
    def forward(self, x):
        return Pieces(x * 2)


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.leaf = nn.Linear(3, 3), Leaf()

    def forward(self, x):
        pieces = self.leaf(self.lin(x))
        assert pieces.name == "pieces"
        return Pieces(pieces.logits + 1)


def test_dataclasses_hold_taps(tmp_path):
    taps = trace_of(tmp_path, Wrapped())[0].taps
    np.testing.assert_array_equal(taps["forward/leaf.logits"], 2 * taps["forward/lin"])
    np.testing.assert_array_equal(taps["forward/output.logits"], taps["forward/leaf.logits"] + 1)
    np.testing.assert_array_equal(taps["backward/d/leaf.logits"] * 2, taps["backward/d/lin"])


class Box:
    def __init__(self, x):
        self.x = x


class Boxed(nn.Module):
    def forward(self, x):
        return Box(x)


class Opened(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.box = nn.Linear(3, 3), Boxed()

    def forward(self, x):
        return self.box(self.lin(x)).x


def test_a_leaf_without_tensors_is_noted_and_a_model_without_is_refused(tmp_path):
    (note,) = trace_of(tmp_path, Opened())[1]
    assert "box (Box)" in note
    with pytest.raises(ParityError, match="expected a tensor of floats.*found Box"):
        trace_of(tmp_path, nn.Sequential(nn.Linear(3, 3), Boxed()))


class Loss(nn.Module):
    def forward(self, x):
        return (x * x).mean()


def test_models_that_train_nothing_have_no_update(tmp_path):
    trace, notes = trace_of(tmp_path, Loss(), **BOTH)
    assert "gradients/input:x" in trace.taps and "no update" in notes[0]
    table = nn.Embedding(4, 3).requires_grad_(False)
    trace, notes = trace_of(tmp_path, table, {"x": np.arange(3)}, **BOTH)
    assert "no update" in notes[0]
    assert not [name for name in trace.taps if name.startswith(("gradients", "one update"))]


PAIR = """
from parity import Pair, Side, normal

def shared(loss=False):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ReLU()
            self.again = self.first

        def forward(self, x):
            return self.again(self.first(x) - 0.5)

    return Net()

def other(module):
    return {new}

pair = Pair(
    Side("torch", shared), Side("torch", shared, replace={{"ReLU": other}}), {{"x": normal(5, 3)}},
    variants=1, float64=False, modes=("eval",),
)
"""


def recorded(tmp_path, new):
    (tmp_path / "pair.py").write_text(PAIR.format(new=new), encoding="utf-8")
    return record_pair(tmp_path / "pair.py", tmp_path / "out", say=lambda line: None)


def test_a_shared_module_is_replaced_at_every_place_and_needs_no_weights(tmp_path):
    files = recorded(tmp_path, "__import__('torch').nn.Identity()").files
    taps = read_trace(files["candidate-pass-float32"]).taps
    np.testing.assert_array_equal(taps["forward/output"], taps["forward/first"] - 0.5)
    assert (taps["forward/output"] < 0).any()  # neither place has a ReLU


def test_a_replacement_that_is_no_module_is_refused(tmp_path):
    with pytest.raises(ParityError, match="replace: first: expected a torch.nn.Module.*found str"):
        recorded(tmp_path, "'relu'")

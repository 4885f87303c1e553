"""Mistakes of a model or a pair file: the message says what was expected, and comes early."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from parity import read_trace  # noqa: E402
from parity.errors import ParityError  # noqa: E402
from parity.recording.processes.runner import record_pair  # noqa: E402
from parity.torch import record  # noqa: E402

X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


class Extra(nn.Linear):
    """Its state dict has a tensor that is neither a parameter nor a buffer."""

    def get_extra_state(self):
        return torch.ones(2)

    def set_extra_state(self, state):
        raise AssertionError(state)


def test_an_extra_state_is_no_weight(tmp_path):
    record(tmp_path / "a.npz", Extra(3, 2), {"x": X})
    assert "parameters/_extra_state" not in read_trace(tmp_path / "a.npz").taps


@pytest.mark.filterwarnings("ignore:Lazy")
def test_lazy_modules_are_refused(tmp_path):
    with pytest.raises(ParityError, match="lazy modules.*call the model once"):
        record(tmp_path / "a.npz", nn.Sequential(nn.LazyLinear(2)), {"x": X})


@pytest.mark.parametrize(
    ("loss", "found"),
    [(lambda o, i: o[0].sum().item(), "float"), (lambda o, i: o[0] * 2, r"shape \(5, 2\)")],
)
def test_a_loss_is_one_number_in_the_graph(tmp_path, loss, found):
    with pytest.raises(ParityError, match=f"loss: expected .*one number.*found .*{found}"):
        record(tmp_path / "a.npz", nn.Linear(3, 2), {"x": X}, loss=loss)


def test_labels_may_have_any_type_of_whole_numbers(tmp_path):
    labels = np.array([0, 1, 1, 0, 1], np.int32)
    targets = {"labels": labels}
    record(tmp_path / "a.npz", nn.Linear(3, 2), {"x": X}, loss="cross_entropy", targets=targets)
    assert read_trace(tmp_path / "a.npz").taps["losses/loss"] > 0


class Never(nn.Linear):
    def forward(self, x):
        raise AssertionError("the model was called")


@pytest.mark.parametrize("option", [{"rate": 0.1}, {"lr": -1.0}])
def test_a_wrong_option_of_the_optimiser_is_found_first(tmp_path, option):
    with pytest.raises(ParityError, match="update: expected options .*sgd"):
        record(tmp_path / "a.npz", Never(3, 2), {"x": X}, update={"name": "sgd", **option})


PAIR = """
from parity import Pair, Side, normal

def build():
    import torch
    from torch import nn

    class Net(nn.Linear):
        def forward(self, x):
            return torch.matmul(super().forward(x), torch.ones(2, 2, dtype=torch.float32))

    return Net(3, 2)

pair = Pair(Side("torch", build), Side("torch", build), {"x": normal(5, 3)}, variants=0,
            modes=("eval",))
"""


def test_a_float32_constant_has_a_remedy(tmp_path):
    (tmp_path / "pair.py").write_text(PAIR, encoding="utf-8")
    recorded = record_pair(tmp_path / "pair.py", tmp_path / "out", say=lambda line: None)
    for side in ("baseline", "candidate"):
        (note,) = (note for note in recorded.notes if side in note)
        assert re.search(r"RuntimeError: .*recording in float64.*`float64=False`", note)
        assert note.endswith("the answer has no float64 of this side")

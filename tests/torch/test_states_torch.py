"""Every pass of a model starts from what was built and loaded, and `record` changes nothing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from parity import read_trace  # noqa: E402
from parity.recording.frameworks.torch.adapter import TorchAdapter  # noqa: E402
from parity.recording.passes import call_once, record_pass  # noqa: E402
from parity.recording.subject import Subject  # noqa: E402
from parity.torch import record  # noqa: E402

X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
BOTH = {"modes": ("eval", "train")}


class ActNorm(nn.Module):
    """Its first call sets the shift, and a flag that no state dict has."""

    def __init__(self):
        super().__init__()
        self.shift, self.done, self.seen = nn.Parameter(torch.ones(3)), False, []

    def forward(self, x):
        if not self.done:
            self.shift.data.copy_(-x.detach().mean(0))
            self.done = True
        self.seen.append(len(x))
        return x + self.shift


class Running(nn.Module):
    """Two buffers move in every mode; one is not saved."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(3), persistent=False)
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("table", torch.ones(3), persistent=False)

    def forward(self, x):
        y = x - self.average + self.count
        self.average = 0.5 * self.average + x.detach().mean(0)
        self.count.data.add_(1)
        return y


class Merging(nn.Module):
    """As in loralib: evaluation merges the low-rank weight, and training takes it out again."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))
        self.a, self.b = nn.Parameter(torch.randn(1, 3)), nn.Parameter(torch.randn(2, 1))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.b.data @ self.a.data)
            self.merged = not mode
        return self

    def forward(self, x):
        y = x @ self.weight.T
        return y if self.merged else y + x @ self.a.T @ self.b.T


def taps_of(tmp_path, model, **options):
    record(tmp_path / "a.npz", model, {"x": X}, **BOTH, **options)
    return read_trace(tmp_path / "a.npz").taps


def test_the_trial_call_leaves_no_flag():
    adapter = TorchAdapter()
    adapter.start("float32")
    model = nn.Sequential(ActNorm())
    weights = {"0.shift": np.zeros(3, np.float32)}
    subject = Subject(adapter, model, {"x": X}, weights, update=None)
    call_once(subject)
    taps = record_pass(subject, None).taps
    for words in ("", "training "):
        np.testing.assert_allclose(taps[f"{words}forward/0"], X - X.mean(0), atol=1e-6)


def test_buffers_start_each_mode_as_they_were_loaded(tmp_path):
    notes = record(tmp_path / "a.npz", nn.Sequential(Running()), {"x": X}, **BOTH)
    taps = read_trace(tmp_path / "a.npz").taps
    assert notes == []  # such as that it draws random numbers
    for words in ("", "training "):
        np.testing.assert_array_equal(taps[f"{words}forward/0"], X)
    np.testing.assert_allclose(taps["training statistics/0.average"], X.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(taps["training statistics/0.count"], np.ones(3))
    assert "training statistics/0.table" not in taps  # a table, which no pass changes


def test_weights_that_evaluation_merges_are_loaded_unmerged(tmp_path):
    torch.manual_seed(0)
    model = Merging()
    taps = taps_of(tmp_path, model)
    full = (model.weight + model.b @ model.a).detach().numpy()
    for words in ("", "training "):
        np.testing.assert_allclose(taps[f"{words}forward/model"], X @ full.T, rtol=1e-5, atol=1e-6)


def test_an_attribute_that_has_no_copy_is_noted(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].stream = (n for n in range(9))
    (note,) = record(tmp_path / "a.npz", model, {"x": X})
    assert "0.stream" in note and "copied" in note


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.calls = nn.BatchNorm1d(3), 0

    def forward(self, x):
        self.calls += 1
        if self.training:
            self.norm(x)
            raise RuntimeError("no training here")
        return self.norm(x)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_record_gives_the_model_back_also_after_an_error(tmp_path, kind, precision):
    model = Failing().to(kind)
    model.norm.weight.grad = torch.full((3,), 2.0, dtype=kind)
    handle = model.norm.register_forward_hook(lambda *_: None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="no training"):
        options = {"precision": precision, "variant": "ulp:1", "update": {"name": "sgd", "lr": 0.1}}
        record(tmp_path / "a.npz", model, {"x": X}, **BOTH, **options)
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name]), name
    assert torch.equal(model.norm.weight.grad, torch.full((3,), 2.0, dtype=kind))
    assert model.calls == 0 and model.training
    handle.remove()
    assert not model.norm._forward_hooks


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_norm_is_recorded_in_float64(tmp_path):
    model = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 2)))
    taps = taps_of(tmp_path, model, precision="float64")
    assert taps["forward/0"].dtype == np.float64
    with torch.no_grad():
        expected = model(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(taps["forward/0"], expected, rtol=1e-5, atol=1e-6)


def test_all_precisions_are_of_the_same_weights(tmp_path):
    """A float64 model's own digits beyond float32 are in no recording."""
    model = nn.Sequential(nn.Linear(3, 2)).double()
    first = read_trace_of(tmp_path, model, "float32")
    second = read_trace_of(tmp_path, model, "float64")
    assert first.manifest["subject"] == second.manifest["subject"]
    for name in ("parameters/0.weight", "parameters/0.bias"):
        np.testing.assert_array_equal(first.taps[name], second.taps[name])


def read_trace_of(tmp_path, model, precision):
    record(tmp_path / "a.npz", model, {"x": X}, precision=precision)
    return read_trace(tmp_path / "a.npz")

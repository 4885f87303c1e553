"""Pairs of PyTorch models: the example, isolated replay, `replace`, and errors with places."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from parity import compare, read_trace
from parity.errors import ParityError
from parity.recording.processes.runner import record_pair

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/parity_pair"

FAULTY = """
import sys
sys.path.insert(0, {folder!r})
from parity import Pair, Side, normal
from net import Net

def faulty():
    net = Net()
    net.blocks[0].norm2.eps = 1e-2
    return net

def mended(norm):
    norm.eps = 1e-5
    return norm

pair = Pair(
    Side("torch", Net),
    Side("torch", faulty{replace}),
    {{"x": normal(2, {channels}, 20, 20)}},
    variants=2,
    float64=False,
    modes={modes},
)
"""


def written(folder, replace="", channels=3, modes="('eval', 'train')"):
    path = folder / "pair.py"
    text = FAULTY.format(folder=str(EXAMPLE), replace=replace, channels=channels, modes=modes)
    path.write_text(text, encoding="utf-8")
    return path


def bad(files):
    return [f"{r.stage}/{r.tap}" for r in compare(files) if r.verdict in ("different", "undecided")]


def test_a_module_alone_shows_its_own_fault_only(tmp_path):
    recorded = record_pair(written(tmp_path), tmp_path / "out", say=lambda line: None)
    chained = bad(recorded.traces("pass"))
    assert "forward/blocks.0.norm2" in chained and "forward/head" in chained
    alone = bad(recorded.traces("isolated"))
    assert "isolated forward/blocks.0.norm2" in alone
    assert "isolated training forward/blocks.0.norm2" in alone
    assert all("blocks.0.norm2" in tap for tap in alone), alone
    for kind, words in (("pass", ""), ("isolated", "isolated ")):
        terms = read_trace(recorded.traces(kind)[0]).manifest["terms"]
        assert terms[f"{words}gradients/stem.bias"] == 2 * 10 * 10
        assert terms[f"{words}training gradients/blocks.1.norm1.weight"] == 2 * 5 * 5


def test_replace_records_behind_a_known_cause(tmp_path):
    replace = ", replace={'blocks.0.norm2': mended}"
    path = written(tmp_path, replace, modes="('eval',)")
    recorded = record_pair(path, tmp_path / "out", say=lambda line: None)
    assert bad(recorded.traces("pass")) == bad(recorded.traces("isolated")) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 4}, r"\(torch\): forward of stem: RuntimeError: .* \(at net.py:\d+\)"),
        ({"replace": ", replace={'Batch': mended}"}, r"replace: 'Batch' is no class name.*Conv2d"),
        ({"replace": ", replace={'Net': mended}"}, "is the model itself"),
    ],
)
def test_errors_name_side_module_and_line(tmp_path, options, words):
    with pytest.raises(ParityError, match=words):
        record_pair(written(tmp_path, **options), tmp_path / "out", say=lambda line: None)


TARGETS = """
import numpy as np
from parity import Pair, Side, integers, normal

def build():
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 3)

        def forward(self, x, mask=None, *, scale):
            return self.fc(x) * scale

    net = Net()
    forward = net.forward
    net.forward = lambda x, s: forward(x, scale=s)
    return net

def loss(outputs, inputs):
    return ((outputs[0] - inputs["heights"]) ** 2 * inputs["s"]).mean()

pair = Pair(
    Side("torch", build),
    Side("torch", build),
    {{"x": normal((2, 4)), "s": normal(2, 1)}},
    loss={loss},
    targets={{{targets}}},
    variants=0,
    float64=False,
)
"""


@pytest.mark.parametrize(
    ("loss", "targets"),
    [("loss", '"heights": normal(2, 3)'), ('"cross_entropy"', '"labels": np.array([2, 0])')],
)
def test_only_the_loss_gets_targets_and_a_function_passes_by_name(tmp_path, loss, targets):
    path = tmp_path / "pair.py"
    path.write_text(TARGETS.format(loss=loss, targets=targets), encoding="utf-8")
    recorded = record_pair(path, tmp_path / "out", say=lambda line: None)
    assert bad(recorded.traces("pass")) == bad(recorded.traces("isolated")) == []
    trace = read_trace(recorded.files["baseline-pass-float32"])
    assert "gradients/input:s" in trace.taps and "gradients/input:heights" not in trace.taps
    assert set(trace.manifest["subject"]["inputs"]) > {"x", "s"}
    output, value = trace.taps["forward/output"], float(trace.taps["losses/loss"])
    if loss == '"cross_entropy"':
        shifted = output - np.log(np.exp(output).sum(1, keepdims=True))
        assert value == pytest.approx(-(shifted[0, 2] + shifted[1, 0]) / 2, rel=1e-5)


UNCALLED = """
from parity import Pair, Side, integers

def build():
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = torch.nn.Embedding(50, 40)
            self.fc = torch.nn.Linear(40, 3)
            self.attn = torch.nn.MultiheadAttention(40, 2, batch_first=True)
            self.kept = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(3))])

        def forward(self, ids):
            x = self.emb(ids)
            return torch.nn.functional.linear(self.attn(x, x, x)[0], self.fc.weight) + self.kept[0]

    return Net()

pair = Pair(Side("torch", build), Side("torch", build), {"ids": integers(50, 2, 5)},
            variants=0, float64=False, modes=("eval",))
"""


def test_modules_that_are_never_called_are_in_the_manifest(tmp_path):
    """Their weights are used by a function; parts of an attention are not counted."""
    path = tmp_path / "pair.py"
    path.write_text(UNCALLED, encoding="utf-8")
    recorded = record_pair(path, tmp_path / "out", say=lambda line: None)
    for side in ("baseline", "candidate"):
        manifest = read_trace(recorded.files[f"{side}-pass-float32"]).manifest
        assert manifest["uncalled"] == ["fc"]
        assert manifest["containers"].keys() == {""}  # an attention is one operation
        entry = manifest["containers"][""]
        assert entry["module"] == "Net" and entry["source"].startswith("pair.py:")
        assert read_trace(recorded.files[f"{side}-isolated-float32"]).manifest["not_alone"] == []
    table = read_trace(recorded.files["baseline-pass-float32"]).taps["parameters/emb.weight"]
    assert abs(np.std(table) - 0.1) < 0.02


def test_a_model_on_another_device_is_refused(tmp_path):
    """Inputs are made on the CPU; `meta` stands for a GPU."""
    import torch

    from parity.torch import record

    model = torch.nn.Sequential(torch.nn.Linear(4, 3, device="meta"))
    with pytest.raises(
        ParityError, match=r"model on the CPU.*found 0.weight on meta; give model.c"
    ):
        record(tmp_path / "a.npz", model, {"x": np.zeros((2, 4), "f4")})

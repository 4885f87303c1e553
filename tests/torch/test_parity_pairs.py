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

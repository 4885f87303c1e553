"""An output that one side detaches is one finding, at that output; other faults keep their own."""

import pytest

torch = pytest.importorskip("torch")

from parity.api import explained  # noqa: E402
from parity.running import record_and_compare  # noqa: E402

PAIR = """
import torch
from torch import nn

from parity import Pair, Side, integers, normal


class Large(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 1000 * gradient


class Net(nn.Module):
    def __init__(self, case, wrong):
        super().__init__()
        self.case, self.wrong = case, wrong
        self.stem, self.mid, self.fc = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        if case == "embedding":
            self.stem = nn.Embedding(11, 8)
            self.stem.weight.requires_grad_(not wrong)
        elif case == "lstm":
            self.gate = nn.LSTM(8, 8)
        else:
            self.down, self.gate = nn.Linear(8, 8), nn.Sigmoid()

    def forward(self, x):
        case, wrong = self.case, self.wrong
        if case == "body":
            with torch.set_grad_enabled(torch.is_grad_enabled() and not wrong):
                x = self.mid(self.stem(x))
            return self.fc(x)
        if case == "everything":
            with torch.set_grad_enabled(torch.is_grad_enabled() and not wrong):
                return self.fc(self.mid(self.stem(x)))
        x = self.stem(x)
        if case == "embedding":
            return self.fc(self.mid(x).mean(1) * (1.5 if wrong else 1.0))
        if case == "large" and wrong:
            x = Large.apply(x)
        x = self.mid(x)
        if case == "lstm":
            gate = self.gate(x[None])[0][0]
        elif case == "twice":
            gate = self.down(torch.tanh(self.down(x)))
        else:
            gate = self.down(x)
            gate = self.gate(gate * 2 if case == "function" else gate)
        if case == "head":
            y = self.fc(x)
            return y if wrong or not self.training else (y, gate)
        if case == "unused":
            return self.fc(x if wrong else x * gate)
        if wrong:
            gate = gate.detach() + 0 * gate if case == "zeros" else gate.detach()
        return self.fc(x * gate)


def side(wrong):
    return Side("torch", lambda: Net("CASE", wrong))


pair = Pair(
    side(BASELINE),
    side(not BASELINE),
    {"x": integers(11, 4, 6) if "CASE" == "embedding" else normal(9, 6)},
    variants=0,
    float64=False,
    modes=("eval", "train") if "CASE" in ("head", "gate") else ("eval",),
)
"""


def findings_of(folder, case, baseline=False):
    text = PAIR.replace("CASE", case).replace("BASELINE", str(baseline))
    (folder / "pair.py").write_text(text, encoding="utf-8")
    comparison, *_ = record_and_compare(folder / "pair.py", folder / "out")
    assert comparison.verdict == "different"
    return explained(comparison)


@pytest.mark.parametrize(
    ("case", "place"),
    [
        ("gate", "gate"),
        ("zeros", "gate"),  # as Jittor, which gives zeros in place of no gradient
        ("function", "gate"),  # its input is made outside of modules
        ("twice", "down"),  # the second call of two
        ("lstm", "gate.0"),  # one of several outputs
        ("body", "mid"),
        ("everything", "output"),
    ],
)
def test_a_detached_output_is_one_finding(tmp_path, case, place):
    answer = findings_of(tmp_path, case)
    (finding,) = answer.findings
    assert (finding.code, finding.places) == ("detached", (place,))
    assert finding.text.startswith("the candidate alone detaches an output: no gradient")
    assert f"{answer.begins.stage}/{answer.begins.tap}".startswith(f"backward/d/{place}")
    if case == "gate":
        names = {*finding.explained}
        assert {"backward/d/down", "gradients/down.bias", "training gradients/down.bias"} <= names


def test_the_baseline_may_be_the_one_that_detaches(tmp_path):
    (finding,) = findings_of(tmp_path, "gate", baseline=True).findings
    assert finding.text.startswith("the baseline alone detaches an output: no gradient")


def test_a_far_larger_error_before_it_is_a_finding_of_its_own(tmp_path):
    findings = findings_of(tmp_path, "large").findings
    assert {found.code for found in findings} == {"", "detached"}
    assert findings[0].places == ("stem",) and findings[0].error > 100


@pytest.mark.parametrize("case", ["unused", "head", "embedding"])
def test_an_output_that_is_left_out_or_frozen_is_not_called_detached(tmp_path, case):
    findings = findings_of(tmp_path, case).findings
    assert "detached" not in {found.code for found in findings}
    if case == "head":
        (finding,) = findings
        assert "the candidate does not return output.1" in finding.text
    if case == "embedding":
        assert findings[-1].code == "frozen" and "stem.weight" in findings[-1].places

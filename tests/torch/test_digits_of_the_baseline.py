"""Digits that the baseline loses in float64: the answer says that they are the baseline's."""

import pytest

torch = pytest.importorskip("torch")

from parity.api import explained  # noqa: E402
from parity.running import record_and_compare  # noqa: E402

PAIR = """
import torch
from torch import nn

from parity import Pair, Side, normal


class HardSigmoid(nn.Module):
    def forward(self, x):
        return torch.clamp(x + 3, 0, 6) / 6


class Gate(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(8, 8), act, nn.Linear(8, 3)

    def forward(self, x):
        return self.out(x * self.act(self.fc(x)))


def sides(act):
    return Side("torch", lambda: Gate(act()))


pair = Pair(sides(nn.Hardsigmoid), sides(HardSigmoid), {"x": normal(16, 8)}, variants=1)
"""


def test_a_gradient_of_torch_has_a_float32_constant(tmp_path):
    """Its slope is the float32 number 1/6, in float64 as well."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.hardsigmoid(x).backward()
    if x.grad.item() == 1 / 6:
        pytest.skip("this PyTorch has all digits")
    (tmp_path / "pair.py").write_text(PAIR, encoding="utf-8")
    comparison, *_ = record_and_compare(tmp_path / "pair.py", tmp_path / "out")
    (finding,) = explained(comparison).findings
    assert (finding.kind, finding.code) == ("less precise", "float32 constant")
    assert "some number of the baseline was float32 for a moment" in finding.text
    assert len(finding.explained) > 9  # those of the pass in training as well

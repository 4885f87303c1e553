"""A gate whose output one side detaches: one finding, at the gate."""

import pytest

torch = pytest.importorskip("torch")

from parity.api import explained  # noqa: E402
from parity.running import record_and_compare  # noqa: E402

PAIR = """
from torch import nn

from parity import Pair, Side, normal


class Gated(nn.Module):
    def __init__(self, detach):
        super().__init__()
        self.detach, self.stem, self.relu = detach, nn.Conv2d(3, 8, 3), nn.ReLU()
        self.down, self.act = nn.Conv2d(8, 4, 1), nn.ReLU()
        self.up, self.gate, self.fc = nn.Conv2d(4, 8, 1), nn.Sigmoid(), nn.Linear(8, 5)

    def forward(self, x):
        x = self.relu(self.stem(x))
        gate = self.gate(self.up(self.act(self.down(x.mean((2, 3), keepdim=True)))))
        return self.fc((x * (gate.detach() if self.detach else gate)).mean((2, 3)))


def side(detach):
    return Side("torch", lambda: Gated(detach))


pair = Pair(side(BASELINE), side(CANDIDATE), {"x": normal(4, 3, 8, 8)}, variants=0, modes=("eval",))
"""


@pytest.mark.parametrize("detached", ["the candidate", "the baseline"])
def test_a_detached_gate_is_one_finding(tmp_path, detached):
    is_candidate = detached == "the candidate"
    text = PAIR.replace("CANDIDATE", str(is_candidate)).replace("BASELINE", str(not is_candidate))
    (tmp_path / "pair.py").write_text(text, encoding="utf-8")
    comparison, *_ = record_and_compare(tmp_path / "pair.py", tmp_path / "out")
    (finding,) = explained(comparison).findings
    assert (finding.code, finding.places) == ("detached", ("gate",))
    assert finding.text.startswith(f"{detached} detaches an output")
    assert {"backward/d/relu", "backward/d/down", "gradients/up.bias"} <= {*finding.explained}

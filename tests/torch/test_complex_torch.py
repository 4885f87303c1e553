"""Complex weights and activations: two real parts in a last axis, in every kind of tap."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from parity import compare, read_trace  # noqa: E402
from parity.recording.processes.runner import record_pair  # noqa: E402
from parity.torch import record  # noqa: E402

PAIR = """
from parity import Pair, Side, normal

def build(conjugate=False):
    import torch
    from torch import nn

    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x)

    class Times(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, dtype=torch.complex64))

        def forward(self, x):
            weight = self.weight
            return x * (weight.conj() if conjugate else weight)

    class Back(nn.Module):
        def forward(self, x):
            return torch.fft.irfft(x, n=7)

    return nn.Sequential(nn.Linear(3, 7), Spectrum(), Times(), Back())

pair = Pair(
    Side("torch", build), Side("torch", lambda: build({fault})), {{"x": normal(5, 3)}}, variants=1
)
"""


def verdicts(tmp_path, fault):
    (tmp_path / "pair.py").write_text(PAIR.format(fault=fault), encoding="utf-8")
    recorded = record_pair(tmp_path / "pair.py", tmp_path / "out", say=lambda line: None)
    rows = [*compare(recorded.traces("pass")), *compare(recorded.traces("isolated"))]
    return {f"{row.stage}/{row.tap} {row.precision}": row.verdict for row in rows}


def test_the_same_model_is_equivalent(tmp_path):
    found = verdicts(tmp_path, "False")
    assert set(found.values()) <= {"equivalent", "vacuous"}
    for precision in ("float32", "float64"):
        for tap in (
            "forward/1", "gradients/2.weight", "one update/step/2.weight", "isolated forward/2",
            "isolated backward/2", "isolated gradients/2.weight", "isolated backward/3",
        ):  # fmt: skip
            assert f"{tap} {precision}" in found


def test_a_conjugate_is_different(tmp_path):
    found = verdicts(tmp_path, "True")
    for tap in ("forward/2", "gradients/2.weight", "isolated forward/2"):
        assert found[f"{tap} float32"] == "different"


class Angle(nn.Module):
    """Its output is complex, and lazily conjugated."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))

    def forward(self, x):
        return (x * self.weight).conj()


def test_parts_are_those_of_torch(tmp_path):
    z = np.array([[1 - 1j, 2 + 0.5j]], np.complex64)
    record(tmp_path / "a.npz", Angle(), {"z": z})
    taps = read_trace(tmp_path / "a.npz").taps
    expected = (z * np.array([1 + 2j, 3 - 1j])).conj()
    np.testing.assert_allclose(taps["forward/output"], np.stack([expected.real, expected.imag], -1))
    assert taps["gradients/weight"].shape == (2, 2) and taps["gradients/input:z"].shape == (1, 2, 2)
    assert taps["parameters/weight"].tolist() == [[1, 2], [3, -1]]

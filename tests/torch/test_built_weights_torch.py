"""`weights="built"`: each side's random weights are those of its float32 process in all others."""

import pytest

pytest.importorskip("torch")

from parity import compare
from parity.recording.processes.runner import record_pair

PAIR = """
from parity import Pair, Side, normal

def build():
    from torch import nn
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

pair = Pair(
    Side("torch", build), Side("torch", build), {"x": normal(5, 3)}, weights="built", variants=1,
    modes=("eval",),
)
"""


def test_a_random_builder_is_equivalent_in_float64_as_well(tmp_path):
    (tmp_path / "pair.py").write_text(PAIR, encoding="utf-8")
    recorded = record_pair(tmp_path / "pair.py", tmp_path / "out", say=lambda line: None)
    rows = compare(recorded.traces("pass"))
    assert {row.precision for row in rows} == {"float32", "float64"}
    assert {row.verdict for row in rows} <= {"equivalent", "vacuous"}

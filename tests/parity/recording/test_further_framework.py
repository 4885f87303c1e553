"""A further framework is an adapter of some 50 lines, which lies anywhere."""

import inspect
import shutil
from pathlib import Path

import pytest

from parity.diagnose.limits import limits_of
from parity.errors import ParityError
from parity.folder import compare_folder
from parity.recording.adapter import adapter_of
from parity.recording.processes.runner import record_pair

HERE = Path(__file__).parent
PAIR = """
import numpy as np
from parity import Pair, Side, normal
from tiny_framework import Chain, Dense, Tanh

def build(bias=0.0):
    class Port(Dense):
        def forward(self, x):
            return super().forward(x) + bias
    first = Dense(weight=np.zeros((6, 5)), bias=np.zeros(6))
    return Chain(first=first, tanh=Tanh(), second=Port(weight=np.zeros((4, 6)), bias=np.zeros(4)))

def faulty():
    return build({fault})

side = "tiny_framework:TinyAdapter"
pair = Pair(Side(side, build), Side(side, faulty), {{"x": normal(3, 5)}})
"""


def compared(folder: Path, fault: float):
    shutil.copy(HERE / "tiny_framework.py", folder)
    (folder / "pair.py").write_text(PAIR.format(fault=fault), encoding="utf-8")
    recorded = record_pair(folder / "pair.py", folder / "out", say=lambda line: None)
    return recorded, compare_folder(folder / "out")[0]


def test_the_adapter_has_some_fifty_lines(tmp_path):
    lines = inspect.getsource(adapter_of("tiny_framework:TinyAdapter").__class__).splitlines()
    assert len([line for line in lines if line.strip()]) <= 50


def test_a_right_port_is_equivalent(tmp_path):
    _, comparison = compared(tmp_path, 0.0)
    assert comparison.verdict == "equivalent"
    taps = {f"{row.stage}/{row.tap} {row.precision}" for row in comparison.rows}
    for precision in ("float32", "float64"):
        assert f"forward/tanh {precision}" in taps
        assert f"isolated forward/second {precision}" in taps
        assert f"parameters/first.weight {precision}" in taps
    assert any("records no gradients" in limit for limit in limits_of(comparison.pairs, {}))


def test_a_fault_is_found_at_its_place(tmp_path):
    _, comparison = compared(tmp_path, 1e-4)
    different = {f"{r.stage}/{r.tap}" for r in comparison.rows if r.verdict == "different"}
    assert different == {"forward/second", "forward/output", "isolated forward/second"}


@pytest.mark.parametrize("name", ["tiny_framework:Nothing", "no_such_package:Adapter", "tiny"])
def test_an_adapter_that_does_not_exist_is_an_error(name):
    with pytest.raises(ParityError, match=r"expected one of torch.*package\.module:Class"):
        adapter_of(name)

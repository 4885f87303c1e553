"""A judgement reads the taps that it needs, and no others: traces may be larger than memory."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parity.comparison.branches import Branches, across_branches
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence


class Counted(Mapping):
    """Taps that count how often each is read."""

    def __init__(self, names):
        self.names, self.read = names, []

    def __getitem__(self, name):
        self.read.append(name)
        return np.ones(3)

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def test_a_rounded_reference_reads_one_tap():
    names = [f"gradients/{n}" for n in range(40)]
    traces = [
        Trace(Path(f"{branch}.npz"), {"branch": branch, "precision": "float64"}, Counted(names))
        for branch in "abc"
    ]
    evidence = Evidence(*traces)
    found = across_branches(names[7], evidence, Branches(stated=True)).baseline
    assert set(found.taps) == set(names) and found.taps[names[7]].dtype == np.float64
    assert {name for trace in traces for name in trace.taps.read} == {names[7]}

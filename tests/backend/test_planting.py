"""A copy of the packages records as the packages do, so that what a mutant shows is its fault."""

import numpy as np

from parity.comparison.trace import read_trace
from parity.suite.record import Job
from parity.suite.record import record as record_here
from tools.mutation.planting import control, plant, record_copy


def test_a_copy_without_a_fault_records_the_same(twin, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plant(control(twin.name), tmp_path / "tree")
    job = Job(twin.name, "vit", str(tmp_path / "copy.npz"))
    record_copy(tmp_path / "tree", [job])
    here = Job(twin.name, "vit", str(tmp_path / "here.npz"))
    record_here(here)
    copied, own = read_trace(job.out), read_trace(here.out)
    assert list(copied.taps) == list(own.taps)
    for name, value in own.arrays("parameters").items():
        assert np.array_equal(copied.taps[f"parameters/{name}"], value), name
    assert np.allclose(copied.taps["forward/logits"], own.taps["forward/logits"], atol=1e-5)

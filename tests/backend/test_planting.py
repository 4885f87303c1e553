"""A copy of the packages records the same traces, so that a mutant differs only by its fault."""

import numpy as np

from parity.comparison.trace import read_trace
from parity.suite.record import Job
from parity.suite.record import record as record_here
from tools.mutation.planting import control, plant, record_copy


def test_a_copy_without_a_fault_records_the_same(twin, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plant(control(twin.name, 1), tmp_path / "tree")
    job = Job(twin.name, "vit", str(tmp_path / "copy.npz"))
    record_copy(tmp_path / "tree", [job])
    original_job = Job(twin.name, "vit", str(tmp_path / "original.npz"))
    record_here(original_job)
    copied, original = read_trace(job.out), read_trace(original_job.out)
    assert list(copied.taps) == list(original.taps)
    for name, value in original.arrays("parameters").items():
        assert np.array_equal(copied.taps[f"parameters/{name}"], value), name
    assert np.allclose(copied.taps["forward/logits"], original.taps["forward/logits"], atol=1e-5)

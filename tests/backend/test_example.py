"""The worked example runs, and a planted fault shows at the tap where it was planted."""

import numpy as np
import pytest
from running import ROOT, python

from parity import compare, compare_traces, read_trace
from parity.api import explained

FOLDER = ROOT / "examples/parity_convnet"
BUGS = {
    "eps": "forward/norm2",
    "transpose": "forward/conv2",
    "stock": "statistics/norm2.running_var",  # norm1's error is below half the digits: undecided
}


def record(twin, folder, *options):
    script = FOLDER / f"record_{twin.name}.py"
    done = python(folder, [script, folder, *options], timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def recorded(twin, tmp_path_factory):
    """Folder of a recording without a fault."""
    folder = tmp_path_factory.mktemp("convnet")
    record(twin, folder)
    return folder


def test_example_records_every_tap(twin, recorded):
    trace = read_trace(recorded / f"{twin.name}.npz")
    assert trace.stages() == ["forward", "losses", "gradients", "statistics"]
    assert list(trace.arrays("forward"))[0] == "conv1" and len(trace.taps) == 23
    assert trace.producer("name") == twin.name
    for value in trace.taps.values():
        assert value.dtype == np.float32 and np.isfinite(value).all() and value.any()


@pytest.mark.only("torch")
def test_example_records_the_evidence_for_a_verdict(twin, recorded):
    files = ["torch", "torch-ulp3", "torch-float64", "torch-ulp1", "torch-ulp2"]
    baseline, candidate, *evidence = (read_trace(recorded / f"{name}.npz") for name in files)
    candidate.manifest["variant"] = None  # a variant that plays the candidate
    candidate.manifest["producer"]["version"] = "another"  # so that the variants are the baseline's
    rows = compare([baseline, candidate, *evidence])
    assert {row.verdict for row in rows} == {"equivalent"} and len(rows) == 23
    assert all(row.noise_floor > 0 for row in rows)
    zeros = {row.tap for row in rows if row.reason == "zero by structure"}
    assert zeros == {"conv1.bias", "conv2.bias"}


@pytest.mark.only("jittor")
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_show_where_they_were_planted(twin, recorded, bug):
    """Two traces alone: what is `different` there is far above rounding."""
    record(twin, recorded, "--bug", bug)
    found = compare_traces([recorded / "jittor.npz", recorded / f"jittor-{bug}.npz"])
    row = explained(found).begins
    assert row and (row.verdict, f"{row.stage}/{row.tap}") == ("different", BUGS[bug])

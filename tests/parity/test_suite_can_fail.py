"""The ladder must be able to say no: one planted fault in files that agree flips the verdict."""

import shutil

import numpy as np
import pytest
from synthetic import change, record_noise

from parity import suite
from parity.cases import CASES
from parity.compare import load_tolerances
from parity.golden import GOLDENS
from parity.record import trace_path
from parity.suite import compare_all, compare_golden, compare_twins


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as monkeypatch:
        record_noise(folder, monkeypatch)
    return folder


@pytest.fixture
def folder(recorded, tmp_path, monkeypatch):
    """A copy of two cases and one golden trace, and a ladder of these alone, for speed."""
    cases = [case for case in CASES if case.name in ("overlap", "adam")]
    goldens = [golden for golden in GOLDENS if golden.name == "smooth"]
    monkeypatch.setattr(suite, "CASES", cases)
    monkeypatch.setattr(suite, "GOLDENS", goldens)
    for one in (*cases, *goldens):
        for path in recorded.glob(f"*-{one.name}-*.npz"):
            shutil.copy(path, tmp_path)
    return tmp_path


def scaled(value):
    return value * np.float32(1 + 1e-4)


def one_off(value):
    value = value.copy()
    value.flat[-1] += 1
    return value


def one_bit(value):
    value = value.copy()
    value.flat[0] = np.nextafter(value.flat[0], value.dtype.type(9))
    return value


def one_nan(value):
    value = value.copy()
    value.flat[-1] = np.nan
    return value


def test_equal_files_agree(recorded):
    verdicts = compare_all(recorded)
    assert len(verdicts) == 8 * 9 + 3 * 2 * 5  # cases, rungs (two ways); goldens, backends, rungs
    assert {one.verdict for one in verdicts} == {"agree"}
    assert all(one.taps > 0 and one.value == 0 for one in verdicts)


TWIN_FAULTS = [
    ("params", "param/blocks.1.mlp.fc1.bias", one_bit),
    ("forward", "block00", scaled),
    ("forward", "part_index", one_off),
    ("forward", "logits", one_nan),
    ("losses", "contrastive", scaled),
    ("gradients", "grad/pos_embed", scaled),
    ("gradients", "grad/blocks.0.attn.key.bias", lambda value: value * 1e3),
    ("one update", "momentum/head.weight", scaled),
    ("one update", "grad_norm", scaled),
    ("twenty updates", "param/part_norm.bias", scaled),
    ("twenty updates", "loss", scaled),
    ("twenty updates", "optim/updates", one_off),
    ("evaluation", "logits", lambda value: value[:, ::-1]),
    ("evaluation", "part_index", one_off),
    ("gradients", "grad/head.bias", lambda value: None),
    ("gradients", "grad/head.weight", lambda value: value.T),
]


@pytest.mark.parametrize("backend", ["jittor", "torch"])
@pytest.mark.parametrize(("rung", "tap", "fault"), TWIN_FAULTS)
def test_fault_between_the_twins(folder, backend, rung, tap, fault):
    change(trace_path(folder, "case", "overlap", backend), f"{rung}/{tap}", fault)
    verdicts = compare_twins(folder, load_tolerances()["twins"])
    failed = [(one.rung, one.case, one.worst_tap) for one in verdicts if one.verdict == "differ"]
    assert failed == [(rung, "overlap", tap)]


@pytest.mark.parametrize(
    ("backend", "pair"), [("torch", "jittor -> torch"), ("jittor", "torch -> jittor")]
)
def test_fault_after_loading_the_others_state(folder, backend, pair):
    change(trace_path(folder, "cross", "adam", backend), "cross-load/exp_avg_sq/head.bias", scaled)
    verdicts = compare_twins(folder, load_tolerances()["twins"])
    failed = [(one.pair, one.worst_tap) for one in verdicts if one.verdict == "differ"]
    assert failed == [(pair, "exp_avg_sq/head.bias")]


GOLDEN_FAULTS = [
    ("forward", "block01", "block01", scaled),
    ("forward", "part_index", "part_index", one_off),
    ("forward", "part_scores", "part_score", scaled),
    ("losses", "loss", "loss", scaled),
    ("gradients", "grad/cls_token", "grad/cls_token", scaled),
    ("updates", "train_losses", "train_losses", scaled),
    ("updates", "after/head.bias", "after/head.bias", scaled),
    ("updates", "train_lrs", "train_lrs", one_bit),
]


@pytest.mark.parametrize(("rung", "tap", "worst", "fault"), GOLDEN_FAULTS)
def test_fault_against_the_published_program(folder, rung, tap, worst, fault):
    change(trace_path(folder, "golden", "smooth", "jittor"), f"{rung}/{tap}", fault)
    verdicts = compare_golden(folder, load_tolerances()["golden"])
    failed = [(one.case, one.pair, one.worst_tap) for one in verdicts if one.verdict == "differ"]
    assert failed == [("smooth", "jittor : published", worst)]

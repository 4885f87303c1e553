"""The recorder, with a backend that returns noise."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from synthetic import NoiseBackend, change, use_noise

from parity.cases.case import BY_NAME, LARGE
from parity.cases.variants import Variant
from parity.comparison.sketch import Sketch
from parity.comparison.trace import read_trace
from parity.errors import ParityError
from parity.suite import record
from parity.suite.jobs import BASELINE, Job, as_argument, from_argument
from parity.suite.record import main, stage_of
from parity.suite.recorder import Recorder
from transfg_core.errors import RunFailed, UserError
from transfg_core.schedule import lr_at

PERMUTE = Variant._permute  # the real one: noise has no symmetry


@pytest.fixture(autouse=True)
def _noise(monkeypatch):
    use_noise(monkeypatch)


@pytest.fixture
def job(tmp_path):
    return Job(BASELINE, "overlap", str(tmp_path / "a.npz"))


def recorded(job, **changes):
    job = replace(job, **changes)
    record.record(job)
    return read_trace(job.out)


STAGES = ["parameters", "forward", "selection", "backward", "gradients", "losses", "rollout",
         "saliency",
         "one update", "updates", "evaluation", "cross-load", "state", "state parts"]  # fmt: skip


def test_what_a_trace_of_a_case_holds(job):
    trace = recorded(job)
    assert sorted(trace.stages()) == sorted(STAGES)
    facts = trace.manifest
    assert facts["case"] == "overlap" and facts["kind"] == "case"
    assert (facts["precision"], facts["variant"], facts["seed"]) == ("float32", None, None)
    assert facts["producer"].keys() >= {"name", "version", "device", "threads", "numpy", "python"}
    assert facts["subject"].keys() == {"weights", "inputs", "settings"}
    assert "precision" not in facts["subject"]["settings"]["run"]
    assert (
        facts["terms"]["losses/contrastive"] == facts["terms"]["updates/contrastive"] == 6 * 6 * 48
    )
    assert facts["terms"].keys() <= trace.taps.keys()
    config = BY_NAME["overlap"].config()
    for name in NoiseBackend(config).param_shapes():
        for tap in (f"parameters/param/{name}", f"gradients/grad/{name}", f"updates/step/{name}"):
            assert tap in trace.taps
    assert "forward/block00.attn.query" in trace.taps  # this case records taps inside blocks
    assert trace.taps["updates/loss"].shape == (19,)  # one report for each update after the first
    assert trace.taps["one update/loss"].shape == (1,)
    assert trace.taps["state/optim/updates"] == 20
    assert trace.taps["cross-load/optim/updates"] == 23
    assert all(isinstance(value, np.ndarray) for value in trace.taps.values())


def test_taps_inside_blocks_are_recorded_where_asked_for(job):
    inside = "forward/block00.attn.query"
    assert inside not in recorded(job, case="nonoverlap").taps
    assert inside in recorded(job, case="nonoverlap", fine=True).taps


def test_steps_are_differences_in_float64(job):
    """In float32, a step of 1e-6 on a weight of 1 would have few digits."""
    trace = recorded(job)
    start = trace.arrays("parameters")
    name = "head.weight"
    state = trace.arrays("state")[f"param/{name}"]
    step = trace.arrays("updates")[f"step/{name}"]
    assert step.dtype == np.float64
    assert np.array_equal(step, state.astype("f8") - start[f"param/{name}"])


def test_rates_are_the_schedules(job, monkeypatch):
    rates = []
    step = NoiseBackend.train_step
    monkeypatch.setattr(
        NoiseBackend,
        "train_step",
        lambda self, micro, lr, parts: rates.append(lr) or step(self, micro, lr, parts),
    )
    recorded(job)
    config = BY_NAME["overlap"].config()
    expected = [lr_at(update, config.optim, config.train.steps) for update in range(1, 24)]
    assert rates == expected and len(set(rates)) > 15


def test_precision_and_seed_and_weights(job, tmp_path):
    first = recorded(job)
    double = recorded(job, precision="float64")
    assert double.manifest["precision"] == "float64"
    assert double.manifest["subject"] == first.manifest["subject"]
    floats = {n: v.dtype for n, v in double.taps.items() if v.dtype.kind == "f"}
    assert set(floats.values()) == {np.dtype(np.float64)}
    other = recorded(job, seed=3, draw="outliers")
    assert (other.manifest["seed"], other.manifest["draw"]) == (3, "outliers")
    for part in ("weights", "inputs"):
        assert other.manifest["subject"][part] != first.manifest["subject"][part]
    weights = {name: value + 1 for name, value in BY_NAME["overlap"].params().items()}
    save_file(weights, tmp_path / "w.safetensors")
    given = recorded(job, weights=str(tmp_path / "w.safetensors"))
    assert np.array_equal(
        given.taps["parameters/param/head.bias"], first.taps["parameters/param/head.bias"] + 1
    )
    assert given.manifest["subject"]["weights"] != first.manifest["subject"]["weights"]
    assert given.manifest["subject"]["inputs"] == first.manifest["subject"]["inputs"]


def test_variants_are_sketched_and_leave_out_bits(job, monkeypatch):
    loaded = []
    load = NoiseBackend.load_params
    monkeypatch.setattr(
        NoiseBackend,
        "load_params",
        lambda self, arrays: loaded.append(arrays) or load(self, arrays),
    )
    first, moved = recorded(job), recorded(job, variant="ulp:1")
    assert moved.manifest["variant"] == "ulp:1"
    assert moved.manifest["subject"] == first.manifest["subject"]  # of the case's own inputs
    assert "parameters" not in moved.stages() and "state" not in moved.stages()
    kept = moved.taps["forward/block00"]
    assert isinstance(kept, Sketch) and kept.buckets.shape == (1024,)
    assert isinstance(moved.taps["forward/logits"], np.ndarray)  # small
    expected = Variant("ulp:1", BY_NAME["overlap"].config()).params(loaded[0])
    assert all(np.array_equal(loaded[1][name], value) for name, value in expected.items())
    assert not np.array_equal(loaded[0]["pos_embed"], loaded[1]["pos_embed"])


def test_only_what_is_replayed_is_whole_in_a_large_case(job, monkeypatch):
    """Isolated operations are fed from the baseline's float32 numbers."""
    case = replace(BY_NAME["overlap"], name=LARGE.name, sketch_above=500)
    monkeypatch.setitem(BY_NAME, LARGE.name, case)
    for backend, precision, whole in (
        (BASELINE, "float32", True), (BASELINE, "float64", False), ("jittor", "float32", False),
    ):  # fmt: skip
        trace = recorded(job, case=LARGE.name, backend=backend, precision=precision)
        assert isinstance(trace.taps["parameters/param/pos_embed"], Sketch)
        for tap in ("forward/block00", "backward/d/block00", "selection/part_scores"):
            assert isinstance(trace.taps[tap], np.ndarray if whole else Sketch), tap


def test_isolated_operations_are_fed_from_the_source(job, monkeypatch, tmp_path):
    calls = []
    trace = NoiseBackend.trace

    def keep(self, batch, replay=None, **options):
        calls.append((dict(replay or {}), options))
        return trace(self, batch, replay, **options)

    monkeypatch.setattr(NoiseBackend, "trace", keep)
    source = recorded(job)
    calls.clear()
    isolated = recorded(job, kind="isolated", source=job.out, out=str(tmp_path / "b.npz"))
    ((replay, options),) = calls
    assert options["fine"]
    expected = source.arrays("forward") | source.arrays("selection") | source.arrays("backward")
    assert replay.keys() == expected.keys()
    assert all(np.array_equal(replay[name], value) for name, value in expected.items())
    assert set(isolated.stages()) == {f"isolated {r}" for r in STAGES[1:6]}
    # the norm after clipping belongs to no isolated operation
    assert "isolated gradients/grad_norm" in isolated.taps
    assert "isolated gradients/clipped_norm" not in isolated.taps
    assert isolated.manifest["subject"]["isolated from"]


def test_indices_are_forced_from_a_trace(job, monkeypatch, tmp_path):
    forced = []
    trace = NoiseBackend.trace
    monkeypatch.setattr(
        NoiseBackend,
        "trace",
        lambda self, batch, replay=None, **o: forced.append(replay) or trace(self, batch, **o),
    )
    recorded(job)
    assert forced[0] == {}
    recorded(job, force=job.out, out=str(tmp_path / "b.npz"))
    assert list(forced[1]) == ["part_index"]
    # indices are stored whole, even where all else is a sketch
    recorded(job, out=str(tmp_path / "s.npz"), sketch_above=8)
    recorded(job, force=str(tmp_path / "s.npz"), out=str(tmp_path / "t.npz"))
    assert list(forced[-1]) == ["part_index"]
    with pytest.raises(UserError, match="weights are not those of case vit"):
        recorded(job, case="vit", force=job.out, out=str(tmp_path / "c.npz"))


def test_updates_use_the_parts_of_the_trace_to_force(job, monkeypatch, tmp_path):
    given = []
    train_step = NoiseBackend.train_step
    monkeypatch.setattr(
        NoiseBackend,
        "train_step",
        lambda self, micro, lr, parts=None: given.append(parts) or train_step(self, micro, lr),
    )
    source = recorded(job)
    own = source.arrays("state parts")
    assert list(own) == [f"{update:02d}" for update in range(1, len(given) + 1)]
    assert all(map(np.array_equal, given, own.values()))
    moved = {name: value % value.max() + 1 for name, value in own.items()}
    for name, value in moved.items():
        change(Path(job.out), f"state parts/{name}", lambda _, value=value: value)
    given.clear()
    forced = recorded(job, force=job.out, out=str(tmp_path / "b.npz"))
    assert len(given) == len(moved) and all(map(np.array_equal, given, moved.values()))
    assert not any(map(np.array_equal, given, own.values()))
    assert not forced.arrays("state parts")
    # a trace with forced parts does not store them
    with pytest.raises(UserError, match=r"b\.npz: it does not hold the parts of update 1; record"):
        recorded(job, force=str(tmp_path / "b.npz"), out=str(tmp_path / "c.npz"))


def test_continuing_from_the_others_state(job, tmp_path):
    source = recorded(job)
    continued = recorded(
        job, kind="continue", source=job.out, backend="jittor", out=str(tmp_path / "b.npz")
    )
    assert continued.stages() == ["cross-load"] and continued.producer("name") == "jittor"
    assert continued.arrays("cross-load").keys() == source.arrays("cross-load").keys()
    assert continued.manifest["subject"] == source.manifest["subject"]
    for name, value in source.arrays("cross-load").items():
        assert np.array_equal(continued.taps[f"cross-load/{name}"], value), name


def test_state_of_one_update_alone(job, monkeypatch):
    monkeypatch.setitem(BY_NAME, "overlap", replace(BY_NAME["mul"], updates=1, optim=LARGE.optim))
    trace = recorded(job)
    assert not {"updates", "cross-load", "state"} & set(trace.stages())
    # the scores judge the ties of the indices
    assert {"evaluation/part_index", "evaluation/part_scores"} <= trace.taps.keys()


@pytest.mark.parametrize(
    ("tap", "stage"),
    [
        ("block00", "forward"), ("block00.attn.query", "forward"), ("logits", "forward"),
        ("part_norm", "forward"), ("norm", "forward"), ("part_layer.norm1", "forward"),
        ("part_tokens", "forward"), ("part_scores", "selection"), ("part_row02", "selection"),
        ("part_index", "selection"), ("d/block00", "backward"), ("d/logits", "backward"),
        ("d/part_norm", "backward"), ("grad/head.bias", "gradients"), ("grad_norm", "gradients"),
        ("clipped_norm", "gradients"), ("loss", "losses"), ("contrastive", "losses"),
        ("cross_entropy", "losses"),
    ],
)  # fmt: skip
def test_stages_of_taps(tap, stage):
    case = BY_NAME["vit" if tap == "norm" else "overlap"]
    assert stage_of(tap, case.config().model) == stage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case": "none"}, "--case none: expected one of nonoverlap, overlap"),
        ({"seed": 1, "draw": "some"}, "--draw some: expected one of noise, truncated, outliers"),
        ({"draw": "outleirs"}, "--draw outleirs: expected one of noise, truncated, outliers"),
        ({"draw": "outliers"}, "--draw outliers: needs --seed"),
        ({"case": "golden-smooth", "seed": 1}, "found golden-smooth"),
        ({"kind": "whole"}, "kind whole: expected one of case, isolated, continue"),
        ({"variant": "ulp"}, "--variant ulp: expected"),
        ({"kind": "isolated", "source": "absent.npz"}, "absent.npz: no such trace"),
        ({"force": "absent.npz"}, "absent.npz: no such trace"),
        ({"out": "absent/a.npz"}, "absent/a.npz: cannot write: no such folder"),
    ],
)
def test_jobs_that_cannot_be_done(job, changes, message):
    with pytest.raises((UserError, ParityError), match=message):
        recorded(job, **changes)


def test_jobs_come_back_from_an_argument(job):
    jobs = [job, replace(job, variant="ulp:1", seed=3)]
    assert from_argument(as_argument(jobs)) == jobs


def run_main(monkeypatch, jobs):
    monkeypatch.setattr(sys, "argv", ["record", as_argument(jobs)])
    return main()


def test_the_child_process_ends_with_2_after_any_error(job, monkeypatch, capsys, tmp_path):
    after = tmp_path / "after.npz"
    jobs = [job, replace(job, case="none"), replace(job, out=str(after))]
    assert run_main(monkeypatch, jobs[:1]) == 0 and read_trace(job.out)
    assert run_main(monkeypatch, jobs) == 2
    printed = capsys.readouterr().err
    assert "torch overlap case float32" in printed and "error: --case none" in printed
    assert not after.exists()  # nothing after a failure

    def fail(self, *rest):
        raise RunFailed("disk full")

    monkeypatch.setattr(NoiseBackend, "load_params", fail)
    assert run_main(monkeypatch, jobs[:1]) == 2 and "error: disk full" in capsys.readouterr().err


def test_a_recorder_gives_variants_of_its_batches(job, monkeypatch):
    """The digest is of the case's own batches; the backend computes the variant's."""
    monkeypatch.setattr(Variant, "_permute", PERMUTE)
    plain, moved = Recorder(job), Recorder(replace(job, variant="symmetry:1"))
    assert plain.manifest["subject"] == moved.manifest["subject"]
    for plain_batch, moved_batch in zip(plain.batches, moved.batches, strict=True):
        a, b = plain_batch.images, moved_batch.images
        assert not np.array_equal(a, b)
        assert np.array_equal(np.sort(a.ravel()), np.sort(b.ravel()))

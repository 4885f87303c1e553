"""The training loop on a backend in NumPy: what it asks for, saves and survives."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
from fake import FakeBackend
from PIL import Image

from transfg_core.backend import Batch
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.training import read_checkpoint
from transfg_core.config.loading import load_config
from transfg_core.data.datasets import Dataset, Samples
from transfg_core.data.loader import TrainStream
from transfg_core.errors import RunFailed
from transfg_core.evaluate import evaluate
from transfg_core.params.initial import initial_params
from transfg_core.run.folder import RunFolder
from transfg_core.run.metrics_log import read_records
from transfg_core.run.progress import Progress
from transfg_core.run.reading import load_run
from transfg_core.schedule import lr_at
from transfg_core.train import Position, StopRequest, Training, split_batch, stop_on_signals, train

COUNT = 10
MODEL = "size=tiny depth=2 width=8 heads=2 mlp=8 patch=8 classes=2".split()
SETTINGS = [
    "data.crop=16", "optim.warmup=2", "train.steps=7", "train.batch_size=4",
    "train.eval_every=3", "train.eval_batch_size=4", *[f"model.{one}" for one in MODEL],
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Noise around a brightness that is the class."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for k in range(COUNT):
        pixels = rng.integers(0, 100, (20, 24, 3)) + 120 * (k % 2)
        paths.append(str(folder / f"{k}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    labels = np.arange(COUNT, dtype=np.int64) % 2
    samples = Samples(tuple(paths), labels, tuple(map(str, range(COUNT))))
    return Dataset("folder", ("dark", "bright"), samples, samples)


class Trial:
    """One run in a folder of its own."""

    def __init__(self, dataset, folder, *overrides, at_update=None):
        self.config = load_config(None, [*SETTINGS, f"run.dir={folder}", *overrides])
        self.dataset, self.position, self.stop = dataset, Position(), StopRequest()
        self.backend = FakeBackend(self.config, at_update)
        self.backend.load_params(initial_params(self.config.model, self.config.data.crop, 0))
        self.events = []

    def run(self, resumed=None):
        """Train; with `resumed`, from that run's `last`."""
        if resumed:
            arrays, metadata = checkpoint.load(resumed.run_dir.checkpoint_path("last"))
            self.backend.load_state(arrays)
            self.position = Position(**metadata["position"])
            self.run_dir = RunFolder.open(resumed.run_dir.path)
            source = self.run_dir.checkpoint_path("last")
            self.run_dir.rewind(source, self.position.update, self.position.evaluated)
        else:
            self.run_dir = RunFolder.create(self.config)
        self._watch("log", lambda record: (record["kind"], record["update"]))
        self._watch("save", lambda which, arrays, metadata: ("save", which))
        progress = Progress("trial", self.config.train.steps)
        with self.run_dir as run:
            training = Training(
                self.config, self.backend, self.dataset, run, self.position, progress
            )
            return train(training, self.stop)

    def _watch(self, name, describe):
        method = getattr(self.run_dir, name)

        def watched(*args):
            method(*args)
            self.events.append(describe(*args))

        setattr(self.run_dir, name, watched)

    def records(self, kind):
        found = read_records(self.run_dir.path / "metrics.jsonl")
        return [record for record in found if record["kind"] == kind]

    def last(self):
        return checkpoint.load(self.run_dir.checkpoint_path("last"))


@pytest.fixture(scope="module")
def validated(dataset):
    """The same images, some of them for validation; the test split is another one."""

    def take(rows):
        samples = dataset.train
        return Samples(
            tuple(samples.paths[row] for row in rows),
            samples.labels[list(rows)],
            tuple(samples.ids[row] for row in rows),
        )

    return replace(dataset, train=take(range(6)), validation=take((6, 7, 8)), test=take((9, 0)))


HELD_OUT = "data.validation=0.3"


def test_validation_chooses_the_best_step(validated, tmp_path):
    trial = Trial(validated, tmp_path, HELD_OUT)
    evaluation = trial.run()
    assert evaluation.images == 2
    records = trial.records("eval")
    during, last, best = records[:3], records[3], records[4]
    assert [(r["split"], r["update"], r["images"]) for r in during] == [
        ("validation", update, 3) for update in (3, 6, 7)
    ]
    chosen = max(during, key=lambda record: record["top1"])["update"]
    assert trial.position.best_update == chosen
    assert [(r["split"], r["weights"], r["weights_update"], r["images"]) for r in (last, best)] == [
        ("test", "last", 7, 2), ("test", "best", chosen, 2)
    ]  # fmt: skip
    arrays = checkpoint.load(trial.run_dir.checkpoint_path("best"))[0]
    trial.backend.load_state(arrays)
    again = evaluate(trial.backend, validated.test, trial.config)
    assert again.loss == best["loss"]
    run = load_run(trial.run_dir.path)
    assert (run.chosen_on, run.final, run.best) == ("validation", last, best)
    assert run.tracked == during


def test_the_best_step_of_validation_may_be_the_last(validated, tmp_path):
    trial = Trial(validated, tmp_path, HELD_OUT, "train.eval_every=7")
    trial.run()
    last, best = trial.records("eval")[1:]
    assert (last["weights"], best["weights"]) == ("last", "best")
    assert (last["top1"], last["loss"]) == (best["top1"], best["loss"])


def test_a_run_stopped_in_its_final_evaluations_makes_them_again(validated, tmp_path):
    straight = Trial(validated, tmp_path / "1", HELD_OUT)
    straight.run()
    stopped = Trial(validated, tmp_path / "2", HELD_OUT)
    load_state = stopped.backend.load_state

    def stop(arrays):  # between the two evaluations
        load_state(arrays)
        stopped.stop.signal = signal.SIGTERM

    stopped.backend.load_state = stop
    assert stopped.position.best_update != 7 and stopped.run() is None
    assert [record["split"] for record in stopped.records("eval")][-1] == "test"
    resumed = Trial(validated, tmp_path / "2", HELD_OUT)
    resumed.run(stopped)
    names = ("update", "split", "weights", "weights_update", "top1", "loss")
    assert [[r[name] for name in names] for r in resumed.records("eval")] == [
        [r[name] for name in names] for r in straight.records("eval")
    ]


def test_split_batch():
    targets = np.eye(6, dtype=np.float32)
    batch = Batch(np.arange(24).reshape(6, 4), np.arange(6), targets)
    parts = split_batch(batch, 3)
    assert [part.labels.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert np.array_equal(np.concatenate([part.targets for part in parts]), targets)
    assert all(part.targets.shape == (2, 6) for part in parts)
    assert (np.concatenate([part.images for part in parts]) == batch.images).all()
    (whole,) = split_batch(batch, 1)
    assert whole.labels.tolist() == list(range(6))


def test_each_update_has_its_rate_and_its_micro_batches(dataset, tmp_path):
    one = Trial(dataset, tmp_path / "1")
    two = Trial(dataset, tmp_path / "2", "train.accumulation=2")
    one.run(), two.run()
    rates = [lr_at(k, one.config.optim, 7) for k in range(1, 8)]
    assert [lr for _, _, lr in one.backend.steps] == rates and rates[-1] == 0
    assert [record["lr"] for record in one.records("train")] == rates
    for (whole, images, _), (halves, same_images, _) in zip(
        one.backend.steps, two.backend.steps, strict=True
    ):
        assert len(whole) == 1 and [len(half) for half in halves] == [2, 2]
        assert whole[0] == halves[0] + halves[1] and images == same_images


def test_when_it_evaluates_and_saves(dataset, tmp_path):
    trial = Trial(dataset, tmp_path, "train.save_every=2", "train.keep=2")
    evaluation = trial.run()
    saved = [what for kind, what in trial.events if kind == "save" and what != "best"]
    # before each evaluation, and after it
    assert saved == [2, "last", *["last"] * 2, 4, "last", 6, *["last"] * 2, *["last"] * 2]
    assert [record["update"] for record in trial.records("eval")] == [3, 6, 7]
    assert [record["update"] for record in trial.records("train")] == list(range(1, 8))
    for number, (kind, what) in enumerate(trial.events):  # all is logged before it is saved
        if kind == "save" and isinstance(what, int):
            assert ("train", what) in trial.events[:number]
    names = {path.stem for path in (trial.run_dir.path / "checkpoints").iterdir()}
    assert names == {"last", "best", "step_000004", "step_000006"}
    assert evaluation.images == COUNT
    assert evaluation.top1 == trial.records("eval")[-1]["top1"]
    assert trial.last()[1]["position"]["update"] == 7


def test_numbers_are_fetched_one_update_late(dataset, tmp_path):
    """So a device is never waited for, except where a checkpoint or evaluation needs it."""
    trial = Trial(dataset, tmp_path, "train.eval_every=100")
    waiting = []
    trial.backend.at_update = lambda k: waiting.append((k, list(trial.backend.fetched)))
    trial.run()
    assert waiting == [(k, list(range(1, k - 1))) for k in range(1, 8)]


def test_best_is_the_first_of_equals(dataset, tmp_path, monkeypatch):
    trial = Trial(dataset, tmp_path, "train.eval_every=2")
    scores = iter([0.5, 0.7, 0.7, 0.6])
    monkeypatch.setattr(
        "transfg_core.evaluate.topk_accuracy", lambda *args: next(scores) if args[2] == 1 else 1.0
    )
    trial.run()
    _, metadata = checkpoint.load(trial.run_dir.checkpoint_path("best"))
    best = {"best_top1": 0.7, "best_update": 4}
    assert metadata["position"] == {"update": 4, "evaluated": 4} | best
    assert trial.last()[1]["position"] == {"update": 7, "evaluated": 7} | best
    assert [what for kind, what in trial.events if kind == "save"].count("best") == 2


@pytest.mark.parametrize("broken", ["loss", "grad_norm"])
@pytest.mark.parametrize("at", [4, 6, 7])
def test_not_a_number_stops_and_leaves_last_alone(dataset, tmp_path, broken, at):
    trial = Trial(dataset, tmp_path)
    step = trial.backend.train_step

    def train_step(micro_batches, lr):
        handle = step(micro_batches, lr)
        return handle | ({broken: math.nan} if trial.backend.updates == at else {})

    trial.backend.train_step = train_step
    with pytest.raises(RunFailed, match=f"update {at}: {broken} is nan.*optim.lr") as caught:
        trial.run()
    assert caught.value.exit_code == 1
    assert trial.last()[1]["position"]["update"] == (3 if at < 7 else 6)
    assert trial.records("train")[-1]["update"] == at
    assert trial.records("train")[-1][broken] is None


# (np.errstate does not hold reliably while other threads compute, in NumPy 1)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_diverged_parameters_stop_the_evaluation(dataset, tmp_path):
    trial = Trial(dataset, tmp_path)
    trial.backend.at_update = lambda k: k == 6 and trial.backend.params["head.bias"].fill(np.inf)
    trial.backend.train_step = lambda batches, lr, step=trial.backend.train_step: (
        step(batches, lr) | {"loss": 1.0, "grad_norm": 1.0}
    )
    match = r"param/head.\w+ is not finite.*last.safetensors holds the state after update 3"
    with pytest.raises(RunFailed, match=match):
        trial.run()
    assert trial.last()[1]["position"]["update"] == 3


# (np.errstate does not hold reliably while other threads compute, in NumPy 1)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_logits_that_overflow_stop_the_evaluation(dataset, tmp_path, capsys):
    """The parameters are finite, so they are saved."""
    trial = Trial(dataset, tmp_path)
    step = trial.backend.train_step

    def train_step(batches, lr):
        handle = step(batches, lr)
        if trial.backend.updates == 6:
            trial.backend.params["head.weight"].fill(3e38)
        return handle

    trial.backend.train_step = train_step
    with pytest.raises(RunFailed, match="expected finite logits"):
        trial.run()
    assert trial.last()[1]["position"]["update"] == 6
    assert "--resume continues" not in capsys.readouterr().err  # it would fail there again


@pytest.mark.parametrize(
    "settings", [["data.rotation=5"], ["data.mixup=0.8", "data.cutmix=1.0", "data.mix_prob=0.8"]]
)
def test_resuming_goes_on_exactly(dataset, tmp_path, settings):
    straight = Trial(dataset, tmp_path / "straight", *settings)
    straight.run()
    stopped = Trial(dataset, tmp_path / "stopped", *settings)
    stopped.backend.at_update = lambda k: k == 5 and setattr(stopped.stop, "signal", 2)
    assert stopped.run() is None
    assert stopped.events[-2:] == [("train", 5), ("save", "last")]
    assert stopped.last()[1]["position"]["update"] == 5
    resumed = Trial(dataset, tmp_path / "stopped", *settings)
    resumed.run(resumed=stopped)
    assert stopped.backend.steps + resumed.backend.steps == straight.backend.steps
    final, expected = resumed.last(), straight.last()
    assert final[0].keys() == expected[0].keys()
    assert all(final[0][name].tobytes() == expected[0][name].tobytes() for name in final[0])
    assert final[1]["position"] == expected[1]["position"]
    for kind in ("train", "eval"):
        timing = ("images_per_second", "data_seconds", "seconds")
        left, right = (
            [{key: one[key] for key in one if key not in timing} for one in trial.records(kind)]
            for trial in (resumed, straight)
        )
        assert left == right


@pytest.mark.parametrize("at", [3, 7])
def test_a_stop_at_an_evaluation(dataset, tmp_path, at):
    """The stop does not wait for the evaluation, which the resumed run makes first."""
    trial = Trial(dataset, tmp_path)
    trial.backend.at_update = lambda k: k == at and setattr(trial.stop, "signal", 15)
    assert trial.run() is None
    assert_stopped_before_evaluating(trial, dataset, tmp_path, at)


@pytest.mark.parametrize("at", [3, 7])
def test_a_stop_amid_an_evaluation(dataset, tmp_path, at):
    trial = Trial(dataset, tmp_path)
    step = trial.backend.eval_step

    def eval_step(images):
        if trial.backend.updates == at:
            trial.stop.signal = 15
        return step(images)

    trial.backend.eval_step = eval_step
    assert trial.run() is None
    assert_stopped_before_evaluating(trial, dataset, tmp_path, at)


def assert_stopped_before_evaluating(trial, dataset, folder, at):
    assert trial.last()[1]["position"]["update"] == at
    evaluated = [3, 6, 7][: {3: 0, 7: 2}[at]]
    assert [record["update"] for record in trial.records("eval")] == evaluated
    resumed = Trial(dataset, folder)
    evaluation = resumed.run(resumed=trial)
    assert [record["update"] for record in resumed.records("eval")] == [3, 6, 7]
    assert evaluation.images == COUNT and resumed.last()[1]["position"]["evaluated"] == 7
    straight = Trial(dataset, folder / "straight")
    straight.run()
    assert resumed.last()[1]["position"] == straight.last()[1]["position"]
    best = [checkpoint.load(one.run_dir.checkpoint_path("best")) for one in (resumed, straight)]
    assert best[0][1]["position"] == best[1][1]["position"]


ERRORS = [MemoryError(), RuntimeError("cudaErrorUnknown"), RunFailed("x.png: cut"), KeyError("bug")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["step", "data", "evaluation"])
def test_an_error_loses_no_whole_update(dataset, tmp_path, capsys, monkeypatch, error, place):
    """Whatever ends the run after update 4 (of evaluation: 6), that update is saved and logged."""
    straight = Trial(dataset, tmp_path / "straight")
    straight.run()
    trial = Trial(dataset, tmp_path / "broken")
    done = 6 if place == "evaluation" else 4

    def fail(*args):
        if trial.backend.updates >= done and trial.backend.params is not None:
            raise error
        return original(*args)

    with monkeypatch.context() as patch:
        if place == "step":
            trial.backend.at_update = lambda k: k == 5 and fail()
        elif place == "data":
            original = TrainStream.__next__
            patch.setattr(TrainStream, "__next__", fail)
        else:
            original = trial.backend.eval_step
            trial.backend.eval_step = fail
        with pytest.raises(type(error)):
            trial.run()
    assert trial.last()[1]["position"]["update"] == done
    assert [record["update"] for record in trial.records("train")] == list(range(1, done + 1))
    message = f"last.safetensors holds the state after update {done}; --resume continues"
    assert message in capsys.readouterr().err
    resumed = Trial(dataset, tmp_path / "broken")
    resumed.run(resumed=trial)
    assert resumed.last()[1]["position"] == straight.last()[1]["position"]
    for name, array in straight.last()[0].items():
        assert resumed.last()[0][name].tobytes() == array.tobytes()
    for kind in ("train", "eval"):
        updates = [record["update"] for record in straight.records(kind)]
        assert [record["update"] for record in resumed.records(kind)] == updates


def test_an_update_that_failed_half_way_is_not_saved(dataset, tmp_path, capsys):
    """Its optimiser may have changed some parameters and not others."""
    trial = Trial(dataset, tmp_path)
    step = trial.backend.train_step

    def train_step(micro_batches, lr):
        step(micro_batches, lr)
        if trial.backend.updates == 5:
            raise MemoryError
        return {"update": trial.backend.updates, "loss": 1.0, "grad_norm": 1.0}

    trial.backend.train_step = train_step
    trial.backend.fetch = lambda handle: {name: np.asarray(handle[name]) for name in handle}
    with pytest.raises(MemoryError):
        trial.run()
    assert trial.last()[1]["position"]["update"] == 3
    message = capsys.readouterr().err
    assert (
        "update 4 is not saved: expected the state after update 4, but update 5 failed" in message
    )
    assert "last.safetensors holds the state after update 3" in message


def test_a_record_that_cannot_be_written_does_not_lose_the_state(dataset, tmp_path, monkeypatch):
    """Update 5 is made before the record of update 4 is written."""
    trial = Trial(dataset, tmp_path)
    log = RunFolder.log

    def full(run, record):
        if record["update"] == 4:
            raise RunFailed("No space left on device")
        log(run, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", full)
        with pytest.raises(RunFailed, match="No space left"):
            trial.run()
    assert trial.last()[1]["position"]["update"] == 5
    resumed = Trial(dataset, tmp_path)
    assert resumed.run(resumed=trial).images == COUNT


def test_an_error_before_the_first_update(dataset, tmp_path, capsys):
    trial = Trial(dataset, tmp_path)
    trial.backend.at_update = lambda k: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trial.run()
    assert "no checkpoint is saved" in capsys.readouterr().err
    assert not trial.run_dir.checkpoint_path("last").exists()


@pytest.mark.parametrize("moment", ["log", "save", "put"])
def test_a_stop_at_any_moment_loses_nothing(dataset, tmp_path, moment, monkeypatch):
    """Whenever the signal comes, what is logged is what is saved."""
    trial = Trial(dataset, tmp_path, "train.save_every=2", "train.eval_every=100")
    original = getattr(RunFolder, moment, None)

    def interrupting(*args):
        trial.stop.signal = 2
        return original(*args)

    if moment == "put":
        from transfg_core.update_log import UpdateLog

        original = UpdateLog.put
        monkeypatch.setattr(UpdateLog, "put", interrupting)
    else:
        monkeypatch.setattr(RunFolder, moment, interrupting)
    assert trial.run() is None
    updates = [record["update"] for record in trial.records("train")]
    done = trial.last()[1]["position"]["update"]
    assert updates == list(range(1, done + 1)) and done < 7


def test_resuming_at_the_end_only_evaluates(dataset, tmp_path):
    """A run killed between its last checkpoint and its predictions."""
    first = Trial(dataset, tmp_path)
    whole = first.run()
    again = Trial(dataset, tmp_path)
    evaluation = again.run(resumed=first)
    assert not again.backend.steps and (evaluation.logits == whole.logits).all()
    assert [record["update"] for record in again.records("eval")] == [3, 6, 7]


def test_timing_is_recorded(dataset, tmp_path):
    trial = Trial(dataset, tmp_path)
    trial.run()
    for record in trial.records("train"):
        assert record["images_per_second"] > 0 and record["data_seconds"] >= 0
        assert record["epoch"] == record["update"] * 4 / COUNT
    assert all(record["seconds"] > 0 for record in trial.records("eval"))


def test_signals(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGINT)
        assert caught.value.code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "a second signal stops at once" in capfd.readouterr().err


def test_a_checkpoint_keeps_the_ids_of_the_classes(dataset, tmp_path):
    trial = Trial(replace(dataset, class_ids=("295", "817")), tmp_path, "train.steps=3")
    trial.run()
    saved = read_checkpoint(trial.run_dir.checkpoint_path("last")).dataset
    assert (saved.classes, saved.class_ids) == (["dark", "bright"], ["295", "817"])

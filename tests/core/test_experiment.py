"""What `train` does around its loop, on a backend in NumPy: refusals, resuming, bad images."""

import errno
import hashlib
import json
import os
import shlex
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fake import FakeBackend
from PIL import Image

from transfg_core import experiment, trained
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.export import save_as
from transfg_core.checkpoints.google import GOOGLE
from transfg_core.config.loading import load_config
from transfg_core.data.decoding import read_image
from transfg_core.data.transforms import eval_transform
from transfg_core.errors import RunFailed, UserError
from transfg_core.experiment import start_training
from transfg_core.explain import parts
from transfg_core.explain.parts import draw_parts
from transfg_core.params.initial import initial_params
from transfg_core.run.folder import RunFolder
from transfg_core.run.metrics_log import read_records
from transfg_core.run.reading import load_run
from transfg_core.trained import evaluate_checkpoint

SETTINGS = [
    "data.name=folder", "data.resize=20", "data.crop=16", "optim.warmup=1", "train.steps=4",
    "train.batch_size=4", "train.eval_every=2", "train.eval_batch_size=4", "model.depth=2",
    "model.width=8", "model.heads=2", "model.mlp=8",
]  # fmt: skip
NAMES = ("a b/one.png", "a b/zwei ü.png", "鳥/three.png", "鳥/четыре.jpg")


def write_images(root, names=NAMES):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, name in enumerate(names):
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 99, (24, 30, 3), np.uint8) + 30 * number).save(path)


class Place:
    """A folder with data, runs and backends that are counted."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "my data"
        self.backends = []
        self.at_update = None
        write_images(self.data)

    def config(self, *overrides):
        own = [f"data.root={self.data}", f"run.dir={self.folder / 'runs'}", "run.name=trial"]
        return load_config(None, [*SETTINGS, *own, *overrides])

    def train(self, *overrides, backend="torch", **flags):
        return start_training(self.config(*overrides), backend, **flags)

    def load(self, name, config):
        self.backends.append(FakeBackend(config, self.at_update))
        return self.backends[-1]

    @property
    def run(self):
        return self.folder / "runs/trial"

    def checkpoint(self, name="last"):
        return self.run / f"checkpoints/{name}.safetensors"

    def records(self, kind="train", run=None):
        found = read_records((run or self.run) / "metrics.jsonl")
        return [record for record in found if record["kind"] == kind]

    def events(self):
        return [record["event"] for record in self.records("event")]

    def refuses(self, match, *overrides, error=UserError, **flags):
        """The call fails by `match`, and leaves every file as it was."""
        before = self.files()
        with pytest.raises(error, match=match) as caught:
            self.train(*overrides, **flags)
        assert self.files() == before
        return caught.value

    def files(self):
        found = (self.folder / "runs").rglob("*")
        return {path: path.is_file() and path.read_bytes() for path in found}

    def kill_at(self, update):
        """End as by `kill -9` would, as far as the files can tell."""

        def die(now):
            if now == update:
                raise KeyboardInterrupt

        self.at_update = die


def test_validation_writes_its_list_and_resumes_from_it(place):
    write_images(place.data, [f"{c}/{k}.png" for c in ("a b", "鳥") for k in range(3)])
    place.kill_at(3)
    with pytest.raises(KeyboardInterrupt):
        place.train("data.validation=0.4")
    rows = (place.run / "split.csv").read_text().splitlines()
    held = [row for row in rows if ",held out," in row]
    assert len(held) > 1 and all(row.startswith("train/") for row in held)
    place.at_update = None
    place.train("data.validation=0.4", resume=True)
    assert [r["split"] for r in place.records("eval")] == ["validation"] * 2 + ["test"] * 2
    predicted = (place.run / "predictions.csv").read_text().splitlines()[1:]
    assert len(predicted) == 10 and all(row.startswith("val/") for row in predicted)
    evaluation, _ = evaluate_checkpoint(place.checkpoint(), "torch", [f"data.root={place.data}"])
    assert evaluation.images == 10
    other = "data.validation=null"
    place.refuses("data.validation: 0.4 -> None", other, resume=True)
    place.train("data.validation=0.4", "run.name=other", resume_from=place.checkpoint("best"))
    assert (place.folder / "runs/other/split.csv").read_text().splitlines() == rows
    (place.run / "split.csv").unlink()
    (place.folder / "runs/other/split.csv").unlink()
    place.refuses(
        "to tell its test images", "data.validation=0.4", "run.name=third",
        resume_from=place.checkpoint("best"),
    )  # fmt: skip


def test_validation_is_refused_after_training_with_these_images(place):
    place.train()
    place.refuses(
        "make these keys equal: data.validation: None -> 0.4", "data.validation=0.4",
        "run.name=other", resume_from=place.checkpoint("best"),
    )  # fmt: skip


def flat_images(place):
    """Six images of each of two classes, without a split on disk."""
    for number in range(12):
        path = place.data / "flat" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (24, 30, 3), np.uint8)
        Image.fromarray(noise).save(path)
    return f"data.root={place.data / 'flat'}"


def test_another_fold_or_share_is_no_resumption(place):
    """The list of the first run would count, and the configuration would say otherwise."""
    root = flat_images(place)
    folds = [root, "data.split=random", "data.folds=3"]
    place.train(*folds, "data.fold=0", "data.validation=0.2")
    source = place.checkpoint("best")
    for changed in (["data.fold=1"], ["data.fold=0", "data.validation=0.4"]):
        place.refuses(
            "make these keys equal: data", *folds, "data.validation=0.2", *changed,
            "run.name=other", resume_from=source,
        )  # fmt: skip
    place.train(*folds, "data.fold=0", "run.name=all", resume_from=source)  # trains with all
    assert "held out" in (place.folder / "runs/all/split.csv").read_text()


def test_an_evaluation_names_images_that_the_run_trained_with(place):
    root = flat_images(place)
    place.train(root, "data.split=random")
    _, dataset = evaluate_checkpoint(place.checkpoint(), "torch", [root])
    assert not [note for note in dataset.notes() if "of the evaluated" in note]
    other = [root, "data.split=official"]
    _, dataset = evaluate_checkpoint(place.checkpoint(), "torch", other)
    assert any("trained with 10 of the evaluated images" in note for note in dataset.notes())


def test_a_lost_best_is_made_again_before_the_last_evaluations(place):
    write_images(place.data, [f"{c}/{k}.png" for c in ("a b", "鳥") for k in range(3)])
    place.train("data.validation=0.4")
    records = (place.run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (place.run / "metrics.jsonl").write_text("".join(records[:-3]))  # as if killed in them
    place.checkpoint("best").unlink()
    assert place.train("data.validation=0.4", resume=True) == 0
    evaluated = [(r["split"], r["weights"], r["weights_update"]) for r in place.records("eval")]
    assert evaluated == [
        ("validation", "last", 2), ("validation", "last", 4), ("test", "last", 4),
        ("test", "best", 4),
    ]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = Place(tmp_path)
    monkeypatch.setattr(experiment, "load_backend", place.load)
    monkeypatch.setattr(trained, "load_backend", place.load)
    monkeypatch.chdir(tmp_path)
    return place


def test_a_run(place):
    assert place.train() == 0
    assert place.events() == ["start", "finish"]
    assert [record["update"] for record in place.records()] == [1, 2, 3, 4]
    names = {path.name for path in place.run.iterdir()} - {".lock", "tensorboard"}
    assert names == {
        "config.yaml", "env.json", "metrics.jsonl", "summary.csv", "predictions.csv", "checkpoints",
    }  # fmt: skip
    rows = (place.run / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [f"val/{name}" for name in NAMES]
    assert load_config(place.run / "config.yaml").model.classes == 2
    assert json.loads((place.run / "env.json").read_text())[0]["device"]["backend"] == "fake"


def test_a_used_folder_is_refused_before_the_data_is_read(place, monkeypatch):
    place.train()
    monkeypatch.setattr(experiment, "read_dataset", pytest.fail)
    place.refuses(r"not empty; --resume .* --overwrite .* run\.name")
    (place.folder / "runs/thesis").mkdir()
    (place.folder / "runs/thesis/chapter.tex").write_text("1")
    for flags in ({"overwrite": True}, {"resume": True}, {}):
        place.refuses("deletes nothing but a run", "run.name=thesis", **flags)


def test_overwrite(place):
    place.train()
    first = place.records()
    assert place.train("optim.lr=0.5", overwrite=True) == 0
    assert [record["update"] for record in place.records()] == [1, 2, 3, 4]
    assert place.records()[0]["lr"] != first[0]["lr"]


def test_overwrite_keeps_the_old_run_until_the_input_is_sound(place):
    place.train()
    place.refuses("no such file", f"model.pretrained={place.folder}/absent.npz", overwrite=True)
    place.refuses("smaller data.crop", "data.crop=48", "data.resize=null", overwrite=True)
    place.refuses(
        "would delete this checkpoint", resume_from=place.checkpoint("best"), overwrite=True
    )


def test_resume_starts_where_there_is_nothing(place):
    assert place.train(resume=True) == 0
    assert place.events() == ["start", "finish"]


def test_a_finished_run_has_nothing_to_do(place, capsys):
    place.train()
    before = place.files()
    assert place.train(resume=True) == 0
    assert place.files() == before and len(place.backends) == 1
    assert "already at update 4 of 4" in capsys.readouterr().err


def test_a_killed_run_goes_on(place):
    place.train("run.name=straight", "train.save_every=1")
    place.kill_at(4)
    with pytest.raises(KeyboardInterrupt):
        place.train("train.save_every=1")
    place.at_update = None
    assert place.train("train.save_every=1", resume=True) == 0
    assert place.events() == ["start", "resume", "finish"]
    assert [record["update"] for record in place.records()] == [1, 2, 3, 4]
    other, _ = checkpoint.load(place.folder / "runs/straight/checkpoints/last.safetensors")
    arrays, _ = checkpoint.load(place.checkpoint())
    assert all(arrays[name].tobytes() == other[name].tobytes() for name in other)


def test_a_run_of_version_0_1_0_resumes(place):
    """Its configuration has no `model.name`, in config.yaml and in the checkpoints."""
    place.kill_at(4)
    with pytest.raises(KeyboardInterrupt):
        place.train("train.save_every=1")
    place.at_update = None
    for path in (place.run / "checkpoints").iterdir():
        arrays, metadata = checkpoint.load(path)
        assert metadata["config"]["model"].pop("name") == "vit"
        checkpoint.save(path, arrays, metadata)
    text = (place.run / "config.yaml").read_text(encoding="utf-8")
    assert text.count("  name: vit\n") == 1
    (place.run / "config.yaml").write_text(text.replace("  name: vit\n", ""), encoding="utf-8")
    assert place.train("train.save_every=1", resume=True) == 0
    assert place.events() == ["start", "resume", "finish"]
    assert load_run(place.run).state == "finished"


def test_a_run_of_another_architecture(place, monkeypatch):
    """It trains and evaluates by the same loop; another architecture does not resume it."""
    own = [setting for setting in SETTINGS if not setting.startswith("model.")]
    own += [f"data.root={place.data}", f"run.dir={place.folder / 'runs'}", "run.name=trial"]
    own += ["model.name=convnet", "model.width=4", "model.width2=5", "model.kernel=3"]
    assert start_training(load_config(None, own), "torch") == 0
    result, _ = evaluate_checkpoint(place.checkpoint(), "torch", [])
    assert result.images == 4 and result.part_hit is None
    match = "expected model.name vit, found convnet"
    place.refuses(match, "run.name=other", "train.steps=9", resume_from=place.checkpoint())
    out = place.folder / "parts.png"
    with pytest.raises(UserError, match="selection, found model.name convnet.*--heat saliency"):
        draw_parts(place.checkpoint(), "torch", [], 2, out)
    with pytest.raises(UserError, match="attention rollout: expected model.name vit, found conv"):
        draw_parts(place.checkpoint(), "torch", [], 2, out, "rollout")
    drawn = []
    monkeypatch.setattr(parts, "part_picture", lambda *args: drawn.append(args) or EMPTY)
    monkeypatch.setattr(FakeBackend, "trace", trace, raising=False)
    monkeypatch.setattr(FakeBackend, "saliency", saliency, raising=False)
    draw_parts(place.checkpoint(), "torch", [], 2, out, "saliency")
    ((pixels, index, scores, grid, *_),) = drawn
    assert index is None and scores.shape == (2, 1, grid.rows * grid.columns)
    assert pixels.shape == (2, grid.rows, grid.columns, 3) and grid.patch == grid.stride == 1


def test_a_run_killed_before_its_first_checkpoint_starts_anew(place):
    place.kill_at(2)
    with pytest.raises(KeyboardInterrupt):
        place.train()
    assert len(place.records()) == 0 and not place.checkpoint().exists()
    place.at_update = None
    place.refuses("not empty; --resume")
    assert place.train(resume=True) == 0
    assert place.events() == ["start", "finish"]


@pytest.mark.parametrize("left", ["best", "step_000002"])
def test_a_run_killed_between_its_first_checkpoints(place, left):
    """`last` is written after the others, so that they are all there is."""
    place.kill_at(3)
    with pytest.raises(KeyboardInterrupt):
        place.train("train.save_every=2")
    for path in (place.run / "checkpoints").iterdir():
        if path.stem != left:
            path.unlink()
    place.at_update = None
    assert place.train("train.save_every=2", resume=True) == 0
    assert place.events() == ["start", "resume", "finish"]
    assert len(place.backends[-1].steps) == 2


def test_a_run_killed_before_its_predictions(place):
    place.train()
    expected = (place.run / "predictions.csv").read_bytes()
    (place.run / "predictions.csv").unlink()
    lines = (place.run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (place.run / "metrics.jsonl").write_text("".join(lines[:-1]))  # without `finish`
    assert place.train(resume=True) == 0
    assert not place.backends[-1].steps
    assert (place.run / "predictions.csv").read_bytes() == expected
    assert place.events() == ["start", "resume", "finish"]
    assert [record["update"] for record in place.records("eval")] == [2, 4]


def killed(place, *overrides):
    """A run with numbered checkpoints of updates 1 to 3, killed in update 4."""
    place.kill_at(4)
    with pytest.raises(KeyboardInterrupt):
        place.train("train.save_every=1", *overrides)
    place.at_update = None


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("position", [3, 40, -1], ids=["length", "header", "parameters"])
def test_a_damaged_last_is_named_and_the_newest_intact_one_used(place, capsys, position):
    """Whatever the times of the files say."""
    place.train("run.name=straight", "train.save_every=1")
    killed(place)
    flip(place.checkpoint(), position)
    flip(place.checkpoint("step_000003"), position)
    os.utime(place.checkpoint("step_000001"))
    assert place.train("train.save_every=1", resume=True) == 0
    messages = capsys.readouterr().err
    for name in ("last", "step_000003"):
        assert f"{place.checkpoint(name)}: expected" in messages and "damaged" in messages
    assert f"{place.checkpoint('step_000002')}: resuming after update 2" in messages or (
        f"{place.checkpoint('best')}: resuming after update 2" in messages
    )
    assert [record["update"] for record in place.records()] == [1, 2, 3, 4]
    assert [record["update"] for record in place.records("eval")] == [2, 4]
    other, _ = checkpoint.load(place.folder / "runs/straight/checkpoints/last.safetensors")
    arrays, _ = checkpoint.load(place.checkpoint())
    assert all(arrays[name].tobytes() == other[name].tobytes() for name in other)


def test_a_position_that_was_changed_does_not_count(place, capsys):
    killed(place)
    path = place.checkpoint("step_000001")
    data = path.read_bytes()
    assert data.count(b'\\"update\\": 1') == 1
    path.write_bytes(data.replace(b'\\"update\\": 1', b'\\"update\\": 9'))
    assert place.train("train.save_every=1", resume=True) == 0
    messages = capsys.readouterr().err
    assert f"{path}: expected the content that was written" in messages
    assert f"{place.checkpoint()}: resuming after update 3" in messages


def test_without_an_intact_checkpoint_nothing_is_deleted(place):
    killed(place)
    names = sorted(path.stem for path in (place.run / "checkpoints").iterdir())
    for name in names:
        flip(place.checkpoint(name), -1)
    error = place.refuses("found only damaged ones.*--overwrite", "train.save_every=1", resume=True)
    assert all(f"{name}.safetensors: expected" in str(error) for name in names)
    assert place.train("train.save_every=1", overwrite=True) == 0


def test_foreign_weights_among_the_checkpoints(place):
    """`transfg convert` may write there: no part of the run, so neither read nor deleted."""
    killed(place)
    foreign = [place.checkpoint(name) for name in ("my-vit-timm", "step_last", "best-2")]
    for path in foreign:
        path.write_bytes(b"weights")
    assert place.train("train.save_every=1", resume=True) == 0
    assert place.events() == ["start", "resume", "finish"]
    assert place.train("train.save_every=4", overwrite=True) == 0
    assert all(path.read_bytes() == b"weights" for path in foreign)
    assert {path.stem for path in (place.run / "checkpoints").iterdir()} == {
        "last", "best", "step_000004", "my-vit-timm", "step_last", "best-2",
    }  # fmt: skip


def test_a_run_without_its_records_is_not_resumed(place):
    """Resuming would replace summary.csv, and the earlier curves would be gone for good."""
    killed(place)
    (place.run / "metrics.jsonl").rename(place.run / "away")
    before = {path: path.read_bytes() for path in place.run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"metrics.jsonl: expected the records .*--resume-from"):
        place.train("train.save_every=1", resume=True)
    assert before == {path: path.read_bytes() for path in before}
    (place.run / "away").rename(place.run / "metrics.jsonl")
    assert place.train("train.save_every=1", resume=True) == 0


@pytest.mark.parametrize("cut", [False, True])
def test_a_lost_best_is_written_again(place, capsys, cut):
    killed(place)
    best = place.run / "checkpoints/best.safetensors"
    if cut:
        best.write_bytes(best.read_bytes()[:200])
    else:
        best.unlink()
    assert place.train("train.save_every=1", resume=True) == 0
    assert "best.safetensors: absent or damaged; the next evaluation" in capsys.readouterr().err
    assert checkpoint.load(best)[1]["position"]["update"] == 4


@pytest.mark.parametrize("side", ["train", "val"])
def test_resuming_with_other_images_of_the_same_number_is_refused(place, side):
    killed(place)
    folder = place.data / side / "a b"
    (folder / "one.png").rename(folder / "other.png")
    with pytest.raises(UserError, match="have other names or classes than at the start"):
        place.train("train.save_every=1", resume=True)
    (folder / "other.png").rename(folder / "one.png")
    assert place.train("train.save_every=1", resume=True) == 0


def test_outputs_never_replace_files_of_the_data_set(place):
    place.train()
    image = place.data / "val" / NAMES[0]
    before = image.read_bytes()
    for out in (image, image.with_name("new.png")):
        with pytest.raises(UserError, match="lies in the data set .*choose a place outside"):
            draw_parts(place.checkpoint(), "torch", [], 1, out)
    (place.data / "list.csv").write_text("mine")
    with pytest.raises(UserError, match="lies in the data set"):
        evaluate_checkpoint(place.checkpoint(), "torch", [], place.data / "list.csv")
    assert image.read_bytes() == before
    assert (place.data / "list.csv").read_text() == "mine"


def test_an_evaluation_of_another_function_is_refused(place):
    """No parameter's shape shows the number of heads."""
    place.train()
    with pytest.raises(UserError, match="expected model.heads 4, found 2; set model.heads=2"):
        evaluate_checkpoint(place.checkpoint(), "torch", ["model.heads=4"])


@pytest.mark.parametrize("copied", [False, True])
def test_a_renamed_or_copied_run_resumes(place, copied):
    killed(place)
    other = place.run.with_name("better-name")
    if copied:
        shutil.copytree(place.run, other)
    else:
        place.run.rename(other)
    name = "run.name=better-name"
    assert place.train("train.save_every=1", name, resume=True) == 0
    assert [record["update"] for record in place.records(run=other)] == [1, 2, 3, 4]
    assert load_run(other).config.run.name == "better-name"
    assert place.run.exists() == copied
    evaluation, _ = evaluate_checkpoint(other / "checkpoints/last.safetensors", "torch", [])
    assert evaluation.images == 4


def test_what_a_killed_start_leaves_does_not_block(place, capsys):
    """Between the writing of the first config.yaml and its renaming."""
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        place.run.mkdir(parents=True)
        (place.run / ".lock").write_text("process 1 on here\n")
        left = place.run / f".config.yaml.1{checkpoint.TEMPORARY}"
        left.write_text("# A run of")
        assert place.train(**flags) == 0
        assert not left.exists()
        shutil.rmtree(place.run)
    assert capsys.readouterr().err.count("no checkpoint to resume from, starting at update 1") == 1


def test_resume_takes_the_lock_before_it_reads(place, monkeypatch):
    killed(place)
    monkeypatch.setattr(experiment, "newest_intact", pytest.fail)
    with RunFolder.open(place.run):
        place.refuses("is writing this run", "train.save_every=1", resume=True)


def test_a_refused_resume_frees_the_lock(place):
    killed(place)
    place.refuses("another configuration", "optim.lr=0.5", resume=True)
    assert place.train("train.save_every=1", resume=True) == 0


def test_resume_wants_the_same_experiment(place):
    place.kill_at(4)
    with pytest.raises(KeyboardInterrupt):
        place.train("train.save_every=1", "train.keep=3")
    place.at_update = None
    error = place.refuses(
        "another configuration", "optim.lr=0.5", "train.steps=9", "train.eval_every=3", resume=True
    )
    assert str(error).splitlines()[1:] == ["  optim.lr: 0.03 -> 0.5", "  train.steps: 4 -> 9"]
    extra = place.data / "train/鳥/extra.png"
    shutil.copy(place.data / "train/鳥/three.png", extra)
    place.refuses("4 training images, .* has 5; restore", "train.save_every=1", resume=True)
    extra.unlink()
    moved = place.data.rename(place.folder / "moved")
    free = ["train.save_every=1", "train.keep=1", "train.eval_batch_size=2", f"data.root={moved}"]
    assert place.train(*free, resume=True) == 0
    names = {path.stem for path in (place.run / "checkpoints").iterdir()}
    assert names == {"last", "best", "step_000004"}


def test_resume_from(place):
    place.train("train.save_every=1")
    source = place.checkpoint("step_000003")
    assert place.train("run.name=two", resume_from=source) == 0
    two = place.folder / "runs/two"
    assert [record["update"] for record in place.records(run=two)] == [4]
    assert {path.stem for path in (two / "checkpoints").iterdir()} == {"last", "best"}
    # another schedule, and another data set of the same classes
    assert place.train("run.name=three", "train.steps=6", resume_from=source, resume=True) == 0
    three = place.folder / "runs/three"
    assert [record["update"] for record in place.records(run=three)] == [4, 5, 6]
    # with --resume, the run's own checkpoint wins
    before = place.files()
    assert place.train("run.name=three", "train.steps=6", resume_from=source, resume=True) == 0
    assert place.files() == before


def test_checkpoints_that_do_not_fit(place):
    place.train()
    last = place.checkpoint()
    name = "run.name=new"
    place.refuses(r"from before update 4, found one after .*train\.steps", name, resume_from=last)
    more = [name, "train.steps=9"]
    place.refuses("is model.width right", *more, "model.width=16", resume_from=last)
    place.refuses("part_layer|missing", *more, "model.depth=3", resume_from=last)
    cut = place.folder / "cut.safetensors"
    cut.write_bytes(last.read_bytes()[:-100])
    place.refuses(f"{cut}: .*cut or damaged file .*take an older", *more, resume_from=cut)
    place.refuses("No such file", *more, resume_from=place.folder / "absent.safetensors")
    bare = place.folder / "bare.safetensors"
    checkpoint.save(bare, {"x": np.zeros(2)}, {})
    place.refuses("bare weights go into model.pretrained", *more, resume_from=bare)
    arrays, metadata = checkpoint.load(last)
    metadata["position"]["seconds"] = 1.0
    old = place.folder / "old.safetensors"
    checkpoint.save(old, arrays, metadata)
    place.refuses("comes from another version", *more, resume_from=old)
    write_images(place.folder / "fish", ("fish/1.png", "fish/2.png", "rays/1.png"))
    fish = f"data.root={place.folder / 'fish'}"
    place.refuses("class 0 is 'a b' there and 'fish' here", *more, fish, resume_from=last)
    with pytest.raises(UserError, match="classes, such as a b, found fish .2 unknown.; is"):
        evaluate_checkpoint(last, "torch", [fish])


def test_evaluate(place, capsys):
    place.train()
    evaluation, dataset = evaluate_checkpoint(place.checkpoint(), "torch", [])
    assert evaluation.top1 == place.records("eval")[-1]["top1"]
    assert evaluation.images == len(dataset.test.paths) == 4
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=rf"{place.checkpoint()}: \d+ problems"):
        evaluate_checkpoint(place.checkpoint(), "torch", ["model.width=16"])
    with pytest.raises(UserError, match="train.batchsize: unknown key"):
        evaluate_checkpoint(place.checkpoint(), "torch", ["train.batchsize=3"])


def test_a_checkpoint_does_not_choose_what_is_read(place, monkeypatch, tmp_path_factory):
    place.train()
    root = f"data.root={place.data}"
    assert evaluate_checkpoint(place.checkpoint(), "torch", [])[0].images == 4
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UserError, match="outside the current folder") as caught:
        evaluate_checkpoint(place.checkpoint(), "torch", [])
    assert str(caught.value).endswith(f"add {shlex.quote(root)}")  # the advice
    assert evaluate_checkpoint(place.checkpoint(), "torch", [root])[0].images == 4
    # a link in the current folder is the user's own; a name with dots is not
    Path("data").symlink_to(place.data)
    arrays, metadata = checkpoint.load(place.checkpoint())
    for name, allowed in (("data", True), (f"../{Path.cwd().name}/data", True), ("..", False)):
        metadata["config"]["data"]["root"] = name
        checkpoint.save(Path("other.safetensors"), arrays, metadata)
        if allowed:
            evaluate_checkpoint(Path("other.safetensors"), "torch", [])
        else:
            with pytest.raises(UserError, match="outside the current folder"):
                evaluate_checkpoint(Path("other.safetensors"), "torch", [])


@pytest.mark.parametrize("named", [False, True])
def test_a_checkpoint_renders_no_toy_set(place, named):
    """Neither where it says, nor where the user says: its size is the checkpoint's."""
    place.train()
    arrays, metadata = checkpoint.load(place.checkpoint())
    metadata["config"]["data"] |= {"name": "toy", "root": "victim/toy"}
    checkpoint.save(place.folder / "toy.safetensors", arrays, metadata)
    overrides = ["data.root=victim/other"] if named else []
    with pytest.raises(UserError, match="`transfg toy victim/.* --train-per-class 100") as caught:
        evaluate_checkpoint(place.folder / "toy.safetensors", "torch", overrides)
    assert "--test-per-class 25 --size 96 --seed 0`" in str(caught.value)
    with pytest.raises(UserError, match="`transfg toy victim/"):
        draw_parts(place.folder / "toy.safetensors", "torch", overrides, 1, place.folder / "p.png")
    assert not (place.folder / "victim").exists()


def test_parts_read_as_an_evaluation_does(place, capsys, monkeypatch):
    """`data.on_bad_image: skip` counts there too, and an error names the image."""
    drawn = []
    place.train()
    monkeypatch.setattr(parts, "part_picture", lambda pixels, *args: drawn.append(pixels) or EMPTY)
    monkeypatch.setattr(FakeBackend, "trace", trace, raising=False)
    bad = place.data / "val" / NAMES[1]
    bad.write_text("not a picture")
    draw = partial(draw_parts, place.checkpoint(), "torch", count=4, out=place.folder / "p.png")
    with pytest.raises(RunFailed, match=f"{bad}: expected an image"):
        draw(overrides=[])
    capsys.readouterr()
    draw(overrides=["data.on_bad_image=skip"])
    assert capsys.readouterr().err.startswith(f"{bad}: skipped: ")
    (pixels,) = drawn
    config = place.config().data
    for number, crop in zip((0, 2, 3), pixels, strict=True):
        assert (
            crop == eval_transform(read_image(place.data / "val" / NAMES[number]), config)
        ).all()
    for name in NAMES:
        (place.data / "val" / name).write_text("not a picture")
    with pytest.raises(RunFailed, match="found none among 4"):
        draw(overrides=["data.on_bad_image=skip"])


EMPTY = Image.new("RGB", (1, 1))


def saliency(self, images):
    """What `draw_parts` needs of saliency: uint8 images (B, H, W, 3) -> (B, H, W)."""
    assert images.dtype == np.uint8
    return {"saliency": images.max(-1).astype(np.float32)}


def trace(self, batch):
    """What `draw_parts` needs of a trace."""
    scores = np.ones((1, 2, 4), np.float32)
    index = np.ones((1, 2), np.int64)
    return {
        "logits": self.logits(batch.images, self.params),
        "part_index": index,
        "part_scores": scores,
    }


def test_a_model_that_the_file_does_not_hold_is_never_made(place, monkeypatch):
    place.train()
    monkeypatch.setattr(trained, "load_backend", pytest.fail)
    arrays, metadata = checkpoint.load(place.checkpoint())
    too_deep = "model.depth: input should be less than or equal to 1000"
    for key, value, match in (
        ("width", 2**40, "problems"),
        ("mlp", 2**50, "problems"),
        ("depth", 900, "problems"),
        ("depth", 10**9, too_deep),
    ):
        metadata["config"]["model"][key] = value
        checkpoint.save(place.folder / "huge.safetensors", arrays, metadata)
        with pytest.raises(UserError, match=match):
            evaluate_checkpoint(place.folder / "huge.safetensors", "torch", [])


def spoil(path, kind):
    if kind == "text":
        path.write_text("not a picture")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:200])
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["text", "cut"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_bad_image(place, capsys, kind, split):
    bad = place.data / split / "鳥/четыре.jpg"
    spoil(bad, kind)
    with pytest.raises(UserError, match="четыре.jpg: expected an image.*on_bad_image=skip"):
        place.train()
    shutil.rmtree(place.folder / "runs", ignore_errors=True)
    assert place.train("data.on_bad_image=skip") == 0
    messages = capsys.readouterr().err
    assert messages.count(f"{bad}: skipped: ") == 1
    bad_images = [record["bad_images"] for record in place.records("eval")]
    assert bad_images == ([0, 0] if split == "train" else [1, 1])


def test_no_image_can_be_read(place):
    for path in (place.data / "val").rglob("*.*"):
        spoil(path, "text")
    place.refuses("expected an image")
    with pytest.raises(RunFailed, match="found none among 4") as caught:
        place.train("data.on_bad_image=skip")
    assert caught.value.exit_code == 1


def test_images_of_every_kind(place):
    """Pillow's modes, odd sizes, and an orientation that is left as it is."""
    folder = place.data / "train/a b"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 4), np.uint8)
    rgb = Image.fromarray(pixels[..., :3])
    rgb.convert("L").save(folder / "grey.jpg")
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("P").save(folder / "transparent palette.png", transparency=3)
    Image.fromarray(pixels).save(folder / "alpha.png")
    Image.fromarray(pixels, "CMYK").save(folder / "cmyk.jpg")
    rgb.crop((0, 0, 1, 1)).save(folder / "1x1.png")
    rgb.resize((900, 2)).save(folder / "wide.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) << 8).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    rgb.convert("1").save(folder / "bits.png")
    rgb.convert("LA").save(folder / "grey alpha.png")
    assert place.train("train.steps=8") == 0
    assert place.events()[-1] == "finish"


def test_data_that_is_no_data_set(place):
    place.refuses("absent: expected train", f"data.root={place.folder}/absent")
    (place.data / "train/empty").mkdir()
    place.refuses("empty: 1 class of train/ found no match")
    (place.data / "val/empty").mkdir()
    place.refuses("empty: expected images .* found none")
    (place.data / "train/empty").rmdir(), (place.data / "val/empty").rmdir()
    place.refuses("model.classes: expected 7, .* has 2 classes", "model.classes=7")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.npz", b"PK\x03\x04 cut", "cut or damaged"),
        ("a.npz", b"", "cut or damaged"),
        ("a.bin", b"x", "cut or damaged"),
        ("a.safetensors", b"x", "cut or damaged"),
        ("a.txt", b"x", r"expected a \.safetensors, \.npz or PyTorch file"),
    ],
)
def test_pretrained_files_that_are_none(place, name, content, match):
    path = place.folder / name
    path.write_bytes(content)
    place.refuses(f"{path}: .*{match}", f"model.pretrained={path}")


def test_pretrained_files_of_another_kind(place):
    objects = place.folder / "objects.npz"
    np.savez(objects, **{"embedding/kernel": np.array([{}], dtype=object)})
    place.refuses("pickled Python objects", f"model.pretrained={objects}")
    other = load_config(None, ["model.placement=none", "model.depth=3", "model.classes=2"]).model
    deeper = place.folder / "deeper.npz"
    save_as(GOOGLE, deeper, initial_params(other, (16, 16), 0), other)
    error = place.refuses("is model.depth right?", f"model.pretrained={deeper}")
    assert "the file holds depth 3, width 96, heads 4" in str(error)
    cut = place.folder / "cut.npz"
    cut.write_bytes(deeper.read_bytes()[:50_000])
    place.refuses("cut or damaged", f"model.pretrained={cut}")


def test_a_place_that_cannot_hold_a_run(place):
    (place.folder / "file").write_text("")
    for folder in (place.folder / "file", Path("/proc/nothing")):
        place.refuses("cannot make the run folder", f"run.dir={folder}")
    place.refuses("File name too long", f"run.name={'x' * 300}", error=(UserError, OSError))


def test_a_run_folder_that_disappears(place):
    place.at_update = lambda k: k == 2 and shutil.rmtree(place.run)
    with pytest.raises(RunFailed, match="No such file"):
        place.train()


def test_a_full_disk(place, monkeypatch):
    sync, done = os.fsync, []

    def full(descriptor):
        if len(done) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(sync(descriptor))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match="No space left on device; free some space") as caught:
        place.train("train.save_every=1")
    assert caught.value.exit_code == 1
    monkeypatch.setattr(os, "fsync", sync)
    assert place.train("train.save_every=1", resume=True) == 0
    assert place.events() == ["start", "resume", "finish"]
    assert [record["update"] for record in place.records()] == [1, 2, 3, 4]


def test_the_file_of_weights_is_recorded(place):
    """Its path, size, hash and form stand in env.json, also after the run is resumed without it."""
    weights = place.folder / "vit.npz"
    model = load_config(None, [*SETTINGS, "model.placement=none", "model.classes=2"]).model
    save_as(GOOGLE, weights, initial_params(model, (16, 16), 0), model)
    given = ("model.placement=none", f"model.pretrained={weights}")
    assert place.train(*given, "train.save_every=2") == 0
    expected = {
        "file": str(weights),
        "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "form": "google-research/vision_transformer",
    }
    assert load_run(place.run).weights == expected
    place.checkpoint().unlink(), place.checkpoint("step_000004").unlink(), weights.unlink()
    assert place.train(*given, "train.save_every=2", resume=True) == 0
    run = load_run(place.run)
    assert run.weights == expected and ["weights" in start for start in run.starts] == [True, False]
    assert place.train("run.name=plain") == 0
    assert load_run(place.folder / "runs/plain").weights == {}


def test_other_files_under_a_checkpoints_name_do_not_stop_a_resume(place, capsys):
    killed(place)
    checkpoint.save(place.checkpoint("best"), {"x": np.zeros(2, np.float32)}, {})
    place.checkpoint("step_000009").mkdir()
    assert place.train("train.save_every=1", resume=True) == 0
    messages = capsys.readouterr().err
    assert f"{place.checkpoint('best')}: expected" in messages
    assert place.checkpoint("step_000009").is_dir()
    assert f"{place.checkpoint()}: resuming after update 3" in messages


def test_checkpoints_without_a_configuration_are_not_to_be_deleted(place):
    place.train()
    (place.run / "config.yaml").unlink()
    error = place.refuses("restore it, or continue in a new folder", resume=True)
    assert "--resume-from" in str(error) and "empty the folder" not in str(error)


def test_a_checkpoint_does_not_choose_the_number_of_processes(place, monkeypatch):
    place.train("data.workers=3", "data.threads=7")
    monkeypatch.setattr(trained, "load_backend", lambda name, config: FakeBackend(config))
    monkeypatch.chdir(place.folder)
    config, _, _ = trained.open_checkpoint(place.checkpoint(), "torch", [])
    assert (config.data.workers, config.data.threads) == (0, 2)
    config, _, _ = trained.open_checkpoint(place.checkpoint(), "torch", ["data.threads=5"])
    assert config.data.threads == 5

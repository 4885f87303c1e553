"""An exported folder: it comes back exactly, is written as a whole, and replaces nothing else."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models_of_export import CLASSES, FACTS, MODELS, model_of
from run_folders import make_run
from running import ROOT, environment, wait_for
from safetensors.numpy import load_file

from transfg_core.checkpoints import file as checkpoint
from transfg_core.config.loading import load_config
from transfg_core.errors import RunFailed, UserError
from transfg_core.export.folder import export
from transfg_core.inference.facts import facts_of
from transfg_core.inference.source import read_model
from transfg_core.params.initial import initial_params


def written(folder, name="transfg", **sections):
    model = model_of(name, **sections)
    export(model, folder, onnx=False, overwrite=False)
    return model


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_comes_back(tmp_path, name, precision):
    model = written(tmp_path / "out", name, run={"precision": precision})
    found = read_model(tmp_path / "out")
    assert found.classes == CLASSES and found.backend == "torch"
    assert found.position == model.position
    assert list(found.params) == list(model.params)
    for key, value in model.params.items():
        assert found.params[key].dtype == value.dtype
        assert np.array_equal(found.params[key], value), key
    assert found.config.model == model.config.model
    changed = {"root", "unpacked", "cache"}
    assert found.config.data.model_dump(exclude=changed) == model.config.data.model_dump(
        exclude=changed
    )
    assert facts_of(found)["accuracy"] == FACTS["accuracy"]


@pytest.mark.parametrize("name", MODELS)
def test_names_of_timm_where_timm_has_the_model(tmp_path, name):
    written(tmp_path / "out", name)
    tree = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))
    is_timm = MODELS[name][2]
    assert tree["transfg"]["names"] == ("timm" if is_timm else "transfg")
    assert tree["architecture"].startswith("transfg_") != is_timm
    keys = load_file(tmp_path / "out/model.safetensors").keys()
    marks = {"blocks.0.attn.qkv.weight", "layer1.0.bn1.weight", "layers.0.blocks.0.norm1.weight"}
    if is_timm:
        assert marks & keys


def test_no_place_of_this_machine_is_published(tmp_path):
    written(tmp_path / "out", "vit", model={"pretrained": "/home/someone/weights/vit.npz"})
    for name in ("config.json", "README.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "/home/" not in text and "someone" not in text, name
    assert read_model(tmp_path / "out").facts["weights"]["file"] == "vit.npz"


def test_overrides_of_an_exported_folder(tmp_path):
    written(tmp_path / "out")
    changed = read_model(tmp_path / "out", ["data.exif=apply", "run.precision=float64"])
    assert changed.config.data.exif == "apply"
    assert {value.dtype for value in changed.params.values()} == {np.dtype(np.float64)}
    with pytest.raises(UserError, match="optim.ema: an exported folder holds the parameters of"):
        read_model(tmp_path / "out", ["optim.ema=0.5"])


def test_facts_of_a_run_are_stored(tmp_path):
    """From a real run's folder, whose checkpoint is the best one."""
    run = make_run(tmp_path, "trial", "torch", overrides=["model.classes=4", "data.crop=32"])
    config = load_config(run / "config.yaml")
    params = initial_params(config.model, config.data.crop, 0)
    state = {f"param/{name}": value for name, value in params.items()}
    state["optim/updates"] = np.array(20)
    position = {"update": 20, "evaluated": 20, "best_top1": 0.95, "best_update": 20}
    data = {"name": "toy", "classes": list("abcd"), "train_images": 9}
    metadata = {"backend": "torch", "config": config.model_dump(mode="json")}
    path = run / "checkpoints" / "best.safetensors"
    path.parent.mkdir(exist_ok=True)
    checkpoint.save(path, state, metadata | {"position": position, "dataset": data})
    model = read_model(run)
    export(model, tmp_path / "out", onnx=False, overwrite=False)
    found = facts_of(read_model(tmp_path / "out"))
    assert found == facts_of(model)
    assert found["chosen_on"] == "test" and found["accuracy"]["top1"] == 0.95
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "| top-1 accuracy | 95.00 % |" in card and "too high by an unknown amount" in card


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="expected a new or empty folder, found other files"):
            export(model_of("vit"), out, onnx=False, overwrite=overwrite)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_an_earlier_export_is_replaced_only_if_asked(tmp_path):
    out = tmp_path / "out"
    written(out, "vit")
    with pytest.raises(UserError, match="add --overwrite to replace it"):
        export(model_of("swin"), out, onnx=False, overwrite=False)
    assert read_model(out).config.model.name == "vit"
    export(model_of("swin"), out, onnx=False, overwrite=True)
    assert read_model(out).config.model.name == "swin"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (out / "notes.txt").touch()
    with pytest.raises(UserError, match="found notes.txt beside it, which would be lost"):
        export(model_of("vit"), out, onnx=False, overwrite=True)
    assert read_model(out).config.model.name == "swin"


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="cannot write a folder there: Not a directory"):
        export(model_of("vit"), tmp_path / "out", onnx=False, overwrite=True)


def test_a_folder_of_somebody_under_the_temporary_name_stays(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine.txt").touch()
    with pytest.raises(UserError, match="is in the way and holds other files"):
        export(model_of("vit"), tmp_path / "out", onnx=False, overwrite=False)
    assert (tmp_path / "out.partial" / "mine.txt").exists()


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk(tmp_path, monkeypatch, earlier):
    out = tmp_path / "out"
    if earlier:
        written(out, "swin")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunFailed, match="No space left on device; free some space"):
            export(model_of("vit"), out, onnx=False, overwrite=earlier)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * earlier
    if earlier:
        assert read_model(out).config.model.name == "swin"


SLOW = """
import sys, time
from pathlib import Path
sys.path[:0] = ["tests"]
from models_of_export import model_of
from transfg_core.export import folder
real = folder.model_card
def card(*arguments):
    Path(sys.argv[2]).touch()
    time.sleep(60)
folder.model_card = card
folder.export(model_of("vit"), Path(sys.argv[1]), onnx=False, overwrite=len(sys.argv) > 3)
"""


@pytest.mark.parametrize("earlier", [False, True])
def test_a_process_that_is_killed_leaves_no_half_folder(tmp_path, earlier):
    out, mark = tmp_path / "out", tmp_path / "mark"
    if earlier:
        written(out, "swin")
    command = [sys.executable, "-c", SLOW, str(out), str(mark), *["overwrite"] * earlier]
    child = subprocess.Popen(command, cwd=ROOT, env=environment())
    wait_for(mark.exists)
    child.send_signal(signal.SIGKILL)
    child.wait()
    if earlier:
        assert read_model(out).config.model.name == "swin"
    else:
        assert not out.exists()
    export(model_of("convnet"), out, onnx=False, overwrite=True)
    assert read_model(out).config.model.name == "convnet"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mark", "out"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = ["tests"]
from models_of_export import model_of
from transfg_core.export import folder
place, step = Path(sys.argv[1]), int(sys.argv[2])
def killed(function):
    def call(path, *arguments, **options):
        global step
        if path.name.startswith(("out", "config.json")) and ".partial" not in path.name:
            step -= 1
            if step == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(path, *arguments, **options)
    return call
Path.rename, Path.unlink = killed(Path.rename), killed(Path.unlink)
folder.export(model_of("vit"), place, onnx=False, overwrite=True)
"""
# where the process is killed -> folders that are left, and the model of the first one
STATES = [
    (1, ["out", "out.new"], "swin"),  # before the two renames
    (2, ["out.new", "out.replaced"], ""),  # between them
    (3, ["out", "out.replaced"], "vit"),  # the old folder is half removed
]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(("step", "left", "name"), STATES)
def test_a_replacement_that_is_killed_is_finished_or_undone(tmp_path, step, left, name, overwrite):
    out = tmp_path / "out"
    written(out, "swin")
    command = [sys.executable, "-c", KILLED, str(out), str(step)]
    child = subprocess.run(command, cwd=ROOT, env=environment(), check=False)
    assert child.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    if step == 3:
        assert [path.name for path in (tmp_path / "out.replaced").iterdir()] == ["config.json"]
    if name:
        assert read_model(out).config.model.name == name
    if overwrite:
        export(model_of("convnet"), out, onnx=False, overwrite=True)
    else:
        with pytest.raises(UserError, match="holds an earlier export"):
            export(model_of("convnet"), out, onnx=False, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    expected = "convnet" if overwrite else name or "swin"
    assert read_model(out).config.model.name == expected


@pytest.mark.parametrize("ending", [".new", ".replaced", ".partial", ".new.partial"])
def test_nothing_of_somebody_else_is_removed(tmp_path, ending):
    """Under a name that serves the replacement: other files, a link to an export, a folder."""
    out, other = tmp_path / "out", tmp_path / f"out{ending}"
    written(out, "swin")
    written(tmp_path / "theirs", "vit")
    other.symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="is in the way"):
        export(model_of("convnet"), out, onnx=False, overwrite=True)
    assert read_model(tmp_path / "theirs").config.model.name == "vit"
    other.unlink()
    for name in ("mine.txt", "README.md"):
        (other / name).mkdir(parents=True)
        with pytest.raises(UserError, match="is in the way"):
            export(model_of("convnet"), out, onnx=False, overwrite=True)
        (other / name).rmdir()
    other.rmdir()
    assert read_model(out).config.model.name == "swin"
    export(model_of("convnet"), out, onnx=False, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "theirs"]


def test_a_failed_exchange_leaves_the_earlier_export(tmp_path, monkeypatch):
    out = tmp_path / "out"
    written(out, "swin")
    real = type(out).rename

    def fails(path, target):
        if path.name == "out.new":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(type(out), "rename", fails)
        with pytest.raises(RunFailed, match="cannot write an exported model here: .*not permitted"):
            export(model_of("vit"), out, onnx=False, overwrite=True)
    assert read_model(out).config.model.name == "swin"
    export(model_of("vit"), out, onnx=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("place", ["link", "real/../real", "link/../real", "real/", "loop/x"])
def test_a_link_stays_a_link(tmp_path, place):
    written(tmp_path / "real", "swin")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(path.name for path in tmp_path.iterdir())
    names = {"loop/x": "swin"}
    if place in names:
        with pytest.raises(UserError, match="cannot follow its links"):
            export(model_of("vit"), tmp_path / place, onnx=False, overwrite=True)
    else:
        export(model_of("vit"), tmp_path / place, onnx=False, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "link").is_symlink()
    assert read_model(tmp_path / "real").config.model.name == names.get(place, "vit")


def test_the_root_is_no_place():
    with pytest.raises(UserError, match="expected a folder below the root"):
        export(model_of("vit"), Path("/"), onnx=False, overwrite=True)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [(5, "weights: Input should be a valid dictionary"), ({"file": "x"}, "weights.sha256")],
)
def test_a_damaged_fact_of_a_run(tmp_path, weights, expected):
    """What an exported folder could not hold is refused before it is written."""
    model = replace(model_of("vit"), facts=FACTS | {"weights": weights})
    with pytest.raises(UserError, match=expected):
        export(model, tmp_path / "out", onnx=False, overwrite=False)
    assert not list(tmp_path.iterdir())

"""The command line: messages, exit codes, and what goes to which stream."""

import json
import os
import pickle
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from running import CONFIG, environment, python, records, transfg

from transfg import app as cli
from transfg import train as train_command
from transfg_core import __version__


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a configuration, its data, and a finished run."""
    folder = tmp_path_factory.mktemp("a place")
    (folder / "config.yaml").write_text(CONFIG)
    done = transfg(folder, "train", "config.yaml")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    return folder


@pytest.fixture
def call(place, monkeypatch, capsys):
    """Run a command in this process; nothing it refuses may leave a trace."""
    monkeypatch.chdir(place)

    def run(*args):
        before = sorted(place.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["transfg", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.run()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        code = ended.value.code or 0
        if code:
            assert sorted(place.rglob("*")) == before
        return code, out, err

    return run


LAST = "runs/trial/checkpoints/last.safetensors"
TRAIN = ("train", "config.yaml", "run.name=new")
GOOGLE = Path(__file__).parents[2] / "parity" / "cases" / "golden" / "tiny_vit.npz"


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("train", "absent.yaml"), ("absent.yaml", "No such file", "check the path")),
        (("train", "."), ("Is a directory",)),
        ((*TRAIN, "train.batchsize=3"), ("did you mean train.batch_size?",)),
        ((*TRAIN, "train.batch_size=0"), ("train.batch_size", "found 0")),
        ((*TRAIN, "train.accumulation=3"), ("8 is not a multiple of train.accumulation 3",)),
        ((*TRAIN, "optim.lr"), ("'optim.lr': expected key=value",)),
        ((*TRAIN, "--backend", "tf"), ("--backend tf: expected one of torch, jittor",)),
        ((*TRAIN, "--resume", "--overwrite"), ("--resume and --overwrite exclude each other",)),
        ((*TRAIN, "--resume-from"), ("requires an argument",)),
        ((*TRAIN, "--resum"), ("No such option", "--resume")),
        ((*TRAIN, "--resume-from", "absent"), ("absent: expected a checkpoint", "check the path")),
        ((*TRAIN, "--resume-from", LAST), ("from before update 4", "raise train.steps")),
        ((*TRAIN, "data.root=absent", "data.name=cub"), ("absent", "images.txt")),
        ((*TRAIN, "data.toy.size=50"), ("toy set of other settings", "delete the folder")),
        ((*TRAIN, "data.crop=99", "data.resize=null"), ("found [96, 96]", "smaller data.crop")),
        ((*TRAIN, "model.classes=7"), ("expected 7", "20 classes", "leave model.classes out")),
        ((*TRAIN, "model.pretrained=x.bin"), ("x.bin: no such file",)),
        ((*TRAIN, "model.pretrained=x.npz"), ("x.npz: no such file",)),
        ((*TRAIN, f"model.pretrained={LAST}", "model.width=48"), ("is model.width right?",)),
        (("train", "config.yaml"), ("runs/trial", "--resume", "--overwrite", "run.name=")),
        (("train", "config.yaml", "--resume", "optim.lr=1"), ("optim.lr: 0.03 -> 1",)),
        (("train", "config.yaml", "--overwrite", "--resume-from", LAST), ("would delete",)),
        (("train", "config.yaml", "run.dir=data", "run.name=toy", "--overwrite"), ("nothing but",)),
        (("train",), ("Missing argument",)),
        (("trian",), ("No such command", "train")),
        (("evaluate", "absent"), ("absent: expected a checkpoint",)),
        (("evaluate", "config.yaml"), ("cut or damaged file",)),
        (("evaluate", LAST, "data.name=folder"), ("named after the checkpoint's",)),
        (("evaluate", LAST, "train.batchsize=3"), ("did you mean train.batch_size?",)),
        (("evaluate", LAST, "--predictions", "no/p.csv"), ("no/p.csv: no such folder",)),
        (("evaluate", LAST, "--predictions", "runs"), ("runs: expected the name of a file",)),
        (("evaluate", LAST, "--predictions", "/dev/null"), ("found something else",)),
        (("parts", LAST, "--out", "runs"), ("runs: expected the name of a file",)),
        (("parts", LAST, "--out", "config.yaml/p.png"), ("config.yaml is no folder",)),
        (("report", "runs/trial", "--out", "config.yaml"), ("config.yaml is no folder",)),
        (("convert", LAST, "runs"), ("runs: expected the name of a file",)),
        (("parity", "--out", "config.yaml/x"), ("config.yaml is no folder",)),
        (("parity", "bisect", "--out", "config.yaml"), ("config.yaml is no folder",)),
        (("parity", "compare", "a", "b", "--out", "config.yaml"), ("config.yaml is no folder",)),
        (("parity", "record", "runs", "--case", "overlap"), ("runs: expected the name of a file",)),
        (("evaluate", "/dev/null"), ("found no regular file",)),
        (("evaluate", "../" + "x" * 300), ("File name too long",)),
        *(
            (
                ("parity", command, "--baseline", "a", "--candidate", "b", "--out", "no/x.json"),
                ("--out no/x.json: no such folder",),
            )
            for command in ("accuracy", "curves")
        ),
        (("toy", "runs"), ("runs: expected a toy set or an empty folder",)),
        (("toy", "new", "--size", "3"), ("data.toy.size", "found 3")),
        (("report", "absent", "--out", "out"), ("absent: expected the folder of a run",)),
        (("report", "runs/trial", "--out", "out", "--parity", "x"), ("x: expected the parity",)),
        (("convert", "absent.bin", "out.safetensors"), ("absent.bin: no such file",)),
        (("convert", "config.yaml", "out.bin"), ("a name ending in .safetensors or .npz",)),
        (("convert", "absent", "out.npz"), ("absent: no such file",)),
        (("convert", "absent", "no/out.npz"), ("no/out.npz: no such folder; make it first",)),
        (("convert", "config.yaml", "out.npz"), ("config.yaml: expected a .safetensors, .npz or",)),
        (("convert", LAST, "out.NPZ"), ("expected model.placement none, found transfg",)),
        (("convert", LAST, "out.safetensors"), ("expected model.placement none, found",)),
        (("convert", GOOGLE, "out.safetensors"), (f"set model.pretrained={GOOGLE}",)),
        (("convert", GOOGLE, "out.npz"), ("need no conversion",)),
        (("evaluate", LAST, "--predictions", LAST), ("expected a name ending in .csv",)),
        (("evaluate", "runs/trial"), ("the folder of a run; try runs/trial/checkpoints/best",)),
        (
            ("evaluate", LAST, "--predictions", "runs/trial/predictions.csv"),
            ("would replace a file of a run",),
        ),
        (
            ("evaluate", LAST, "--predictions", "runs/trial/checkpoints/split.csv"),
            ("expected another name than that of a run's split",),
        ),
        (("evaluate", LAST, "model.heads=1"), ("expected model.heads 1, found 2",)),
        (("parts", LAST, "--out", LAST), ("expected a name ending in .png",)),
        (("convert", GOOGLE, GOOGLE), ("would replace the file that is read",)),
        (("convert", "config.yaml", LAST), ("would replace a checkpoint of a run",)),
        (("train", "config.yaml", "model.pretrained="), ("expected a value after `=`",)),
        (("predict", "runs/trial"), ("Missing argument", "IMAGE")),
        (("predict", "absent", "x.png"), ("absent: expected the folder of a run", "no such file")),
        (("predict", "runs/trial", "x*.png"), ("expected a pattern of image files",)),
        (("predict", "runs/trial", "runs"), ("runs: expected images in this folder, found none",)),
        (("predict", "runs/trial", "x.png", "--format", "xml"), ("one of table, json, csv",)),
        (("predict", "runs/trial", "x.png", "data.cropp=3"), ("did you mean data.crop",)),
        (("predict", "runs/trial", "x.png", "model.width=48"), ("is model.width right?",)),
        (("weights", "B/15"), ("no known weights have this name", "`transfg weights` lists all")),
    ],
)  # fmt: skip
def test_input_errors(call, args, parts):
    code, out, err = call(*args)
    assert code == 2 and out == ""
    for part in parts:
        assert part in " ".join(err.split()), err


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("image_class_labels.txt", ("80 20", "80 21"), (":80: ", "from 1 to 20, found '21'")),
        ("image_class_labels.txt", ("80 20", "80 0"), (":80: ", "found '0'")),
        ("image_class_labels.txt", ("80 20\n", ""), ("id 80 is not in image_class_labels.txt",)),
        ("train_test_split.txt", (" 0\n", " 1\n"), ("expected test images, found none",)),
        ("images.txt", ("_0001.jpg", "_0009.jpg"), ("is listed but absent",)),
    ],
)
def test_a_spoiled_data_set(call, place, name, change, parts):
    spoiled = place.parent / "spoiled"
    shutil.copytree(place / "data/toy", spoiled, dirs_exist_ok=True)
    text = (spoiled / name).read_text().replace(*change)
    (spoiled / name).write_text(text)
    code, _, err = call(*TRAIN, f"data.root={spoiled}", "data.name=cub")
    assert code == 2
    for part in (str(spoiled), *parts):
        assert part in err


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def test_a_pickle_with_code_is_not_run(call, place):
    marker = place.parent / "marker"
    (place / "evil.bin").write_bytes(pickle.dumps({"model": Evil(marker)}))
    code, _, err = call("convert", "evil.bin", "out.safetensors")
    assert code == 2 and "refused, no code was run" in " ".join(err.split())
    code, _, err = call(*TRAIN, "model.pretrained=evil.bin")
    assert code == 2 and "refused, no code was run" in " ".join(err.split())
    code, _, err = call("evaluate", "evil.bin")
    assert code == 2 and "a Python pickle, such as torch.save writes" in " ".join(err.split())
    assert not marker.exists()


def test_a_missing_framework_is_named_with_its_command(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for args in (TRAIN, ("evaluate", LAST)):
        code, _, err = call(*args)
        assert code == 2 and "PyTorch is not installed; run: " in err


def test_what_the_system_refuses_and_memory(call, monkeypatch):
    for error, text in (
        (OSError(5, "Input/output error", "disk"), "refused: [Errno 5] Input/output error: 'disk'"),
        (MemoryError("Unable to allocate 8 TiB"), "out of memory: Unable to allocate 8 TiB; try"),
        (MemoryError(), "out of memory: no more is available; try a smaller train.batch_size"),
        (RuntimeError("CUDA out of memory. Tried 2\nmore"), "out of memory: CUDA out of memory. T"),
    ):
        monkeypatch.setattr(train_command, "load_config", lambda *args, error=error: raise_(error))
        code, _, err = call("train", "config.yaml")
        assert code == 1 and text in err


def test_results_are_printed_if_the_predictions_cannot_be_written(call, place, monkeypatch):
    """The disk may fill up after the check of the place."""
    monkeypatch.setattr(os, "fsync", lambda *args: raise_(OSError(28, "No space left on device")))
    code, out, err = call("evaluate", LAST, "--predictions", "p.csv")
    assert code == 1 and json.loads(out)["images"] and "No space left on device" in err


def raise_(error):
    raise error


def test_our_own_bugs_keep_their_traceback(call, monkeypatch):
    monkeypatch.setattr(train_command, "load_config", lambda *args: raise_(KeyError("ours")))
    with pytest.raises(KeyError):
        cli.app(["train", "config.yaml"], standalone_mode=False)


def test_messages_are_printed_as_they_are(capsys):
    cli.complain("/a/[b]/:smile:/c: [red]no[/red] " + "x" * 200)
    assert capsys.readouterr().err == ("error: /a/[b]/:smile:/c: [red]no[/red] " + "x" * 200 + "\n")


def test_messages_do_not_steer_the_terminal(capsys):
    cli.complain("class '\x1b[2J\x07' of 鳥\n  and\tmore" + "y" * 9000)
    shown = capsys.readouterr().err
    assert shown.startswith("error: class '\\x1b[2J\\x07' of 鳥\n  and\\tmore")
    assert 8000 < len(shown) < 8100 and shown.endswith("y...\n")


def test_help_and_version(call):
    assert call("--version")[:2] == (0, f"transfg {__version__}\n")
    code, out, _ = call("--help")
    assert code == 0
    for command in ("train", "evaluate", "toy", "weights", "convert", "report", "doctor"):
        assert f"\n  {command} " in out


def test_weights(call):
    code, out, err = call("weights")
    assert code == 0 and err == ""
    assert re.search(r"^vit_base_patch16_224\.orig_in21k +B/16 +224 +0 +half +343 ", out, re.M)
    code, out, err = call("weights", "vit_base_patch16_224.orig_in21k")
    assert code == 0 and err == ""
    folder = "data/weights/vit_base_patch16_224.orig_in21k"
    name = "timm/vit_base_patch16_224.orig_in21k model.safetensors"
    assert f" hf download {name} --local-dir {folder}\n" in out
    assert f"HF_ENDPOINT=https://hf-mirror.com hf download {name}" in out
    assert out.endswith(f"model.pretrained={folder}/model.safetensors\n")


def test_toy_twice_is_once(call, place):
    size = ("--train-per-class", 1, "--test-per-class", 1, "--size", 48)
    assert call("toy", "small toy", *size)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (place / "small toy").rglob("*")}
    assert call("toy", "small toy", *size)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in (place / "small toy").rglob("*")}
    assert call("toy", "small toy")[0] == 2


def test_report(call, place):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    code, out, _ = call("report", "runs/trial", "--out", "the report")
    assert code == 0 and out == "the report/report.html\n"
    assert (place / out.strip()).is_file()
    assert call("report", "runs/trial", "--out", "config.yaml")[0] == 2


def test_evaluate_prints_one_json_object(place):
    done = transfg(place, "evaluate", LAST, "--predictions", "predictions.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    found, logged = json.loads(done.stdout), records(place / "runs/trial", "eval")[-1]
    assert found["checkpoint"] == LAST and found["backend"] == "torch"
    for name in ("top1", "top5", "loss", "part_hit", "part_hit_chance", "images"):
        assert found[name] == logged[name]
    written = (place / "predictions.csv").read_text()
    assert written == (place / "runs/trial/predictions.csv").read_text()


def test_evaluate_names_the_command_that_renders_its_toy_set(call, place, tmp_path):
    """It renders nothing itself, since a checkpoint of somebody else may say where and how much."""
    evaluate = ("evaluate", LAST, f"data.root={tmp_path}/toy")
    code, _, err = call(*evaluate)
    assert code == 2 and not (tmp_path / "toy").exists()
    advice = shlex.split(err[err.index("`transfg toy ") :].split("`")[1])
    assert call(*advice[1:])[0] == 0
    assert call(*evaluate)[0] == 0


def test_standard_output_is_for_the_result_alone_and_may_be_closed(place):
    command = f"'{sys.executable}' -m transfg evaluate '{LAST}'"
    script = f"{command} | head -c 0; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "1\n" and "Traceback" not in done.stderr


def test_a_reader_that_leaves_does_not_stop_the_run(place):
    command = f"'{sys.executable}' -m transfg train config.yaml run.name=piped"
    script = f"{command} 2>&1 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment(), capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""
    assert len(records(place / "runs/piped")) == 4


def test_a_bad_image_that_is_skipped(place):
    data = place.parent / "folders"
    for split in ("train", "val"):
        for name in ("red/1", "red/2", "blue/1", "blue/zwei ü"):
            path = data / split / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), path.parent.name).save(path)
    bad = data / "train/blue/zwei ü.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    own = ("data.name=folder", f"data.root={data}", "data.on_bad_image=skip", "run.name=skips")
    done = transfg(place, "train", "config.yaml", *own)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{bad}: skipped: ") == 1


def test_a_file_that_may_not_grow(place):
    """A full disk (with the system's own error) fails the run; with room, the run resumes."""
    settings = ("train", "config.yaml", "run.name=full")
    limit = 60_000  # more than any log here, less than a checkpoint
    done = transfg(
        place, *settings,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "step_000001.safetensors: could not write" in done.stderr
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not list((place / "runs/full/checkpoints").iterdir())


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "transfg.evaluate":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["transfg", "--version"]
from transfg.main import main
main()
"""


def test_ctrl_c_during_the_imports_is_quiet(tmp_path):
    done = python(tmp_path, ["-c", INTERRUPTED])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_not_a_number(place):
    done = transfg(
        place, "train", "config.yaml", "run.name=nan", "optim.lr=1e30", "optim.clip=null"
    )
    assert done.returncode == 1 and "is nan, expected a finite number" in done.stderr
    assert "Traceback" not in done.stderr
    has_checkpoint = "no checkpoint is saved" not in done.stderr
    assert ("--resume-from" in done.stderr) == has_checkpoint
    names = {path.stem for path in (place / "runs/nan/checkpoints").iterdir()}
    assert "last" not in names or names >= {"step_000001"}


def test_predict(place):
    """Words, formats, streams and exit codes; an image is not read twice from standard input."""
    images = sorted(str(path.relative_to(place)) for path in place.glob("data/toy/images/*/*.jpg"))
    done = transfg(place, "predict", "runs/trial", images[0], "data/toy/images/*/*_0001.jpg")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 21 and lines[0].startswith(images[0]) and lines[0].count(" % ") == 5
    content = (place / images[0]).read_bytes()
    command = [sys.executable, "-m", "transfg", "predict", "runs/trial", "-", "absent.png"]
    command += ["--format", "json", "--top", "99", "data.exif=apply"]
    done = subprocess.run(
        command, cwd=place, input=content, capture_output=True, env=environment(), timeout=300
    )
    first, second = map(json.loads, done.stdout.decode().splitlines())
    assert done.returncode == 1 and b"1 of 2 images could not be read" in done.stderr
    assert first["image"] == "standard input" and len(first["top"]) == 20
    assert sum(item["probability"] for item in first["top"]) == pytest.approx(1, abs=2e-5)
    assert second == {"image": "absent.png", "error": "no such file"}
    shown = float(lines[0].split(" % ")[0].split()[-1])
    assert shown == pytest.approx(100 * first["top"][0]["probability"], abs=0.06)

"""`transfg export` as a command: a run that was trained here, and its messages."""

import json

import pytest
from running import CONFIG, transfg


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    done = transfg(folder, "train", "config.yaml", "--backend", "torch")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_becomes_a_folder(run):
    done = transfg(run, "export", "runs/trial", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out: model.safetensors, config.json, README.md\n"
    tree = json.loads((run / "out/config.json").read_text(encoding="utf-8"))
    assert len(tree["label_names"]) == tree["num_classes"] == 20
    card = (run / "out/README.md").read_text(encoding="utf-8")
    assert "# trial" in card and str(run) not in card
    again = transfg(run, "export", "runs/trial", "out")
    assert again.returncode == 2 and "add --overwrite to replace it" in again.stderr
    assert transfg(run, "export", "out", "out", "--overwrite").returncode == 0
    assert json.loads((run / "out/config.json").read_text(encoding="utf-8")) == tree


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("runs", "new"), "expected the folder of a run, a checkpoint"),
        (("runs/absent", "new"), "found no such file"),
        (("runs/trial", "config.yaml/new"), "config.yaml is no folder"),
        (("runs/trial", "runs/trial"), "found other files in it; choose another name"),
    ],
)
def test_messages(run, arguments, expected):
    done = transfg(run, "export", *arguments)
    assert done.returncode in (1, 2) and expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr and not (run / "new").exists()

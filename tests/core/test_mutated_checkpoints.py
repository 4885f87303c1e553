"""Checkpoints of somebody else, whose metadata says anything: refused with a message, or used."""

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from fake import FakeBackend
from PIL import Image

from transfg_core import experiment, trained
from transfg_core.checkpoints import file as checkpoint
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.experiment import start_training
from transfg_core.trained import evaluate_checkpoint

SETTINGS = [
    "data.name=folder", "data.root=data", "data.crop=16", "data.resize=20", "optim.warmup=1",
    "train.steps=2", "train.batch_size=2", "train.eval_batch_size=2", "model.depth=2",
    "model.width=8", "model.heads=2", "model.mlp=8", "run.name=source",
]  # fmt: skip
SOURCE = Path("runs/source/checkpoints/last.safetensors")
MUTATIONS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data and a run, and beside it one that nothing may touch."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "outside").mkdir()
    rng = np.random.default_rng(0)
    for name in ("train/a/1", "train/b/1", "val/a/1", "val/b/1"):
        path = folder / "inside/data" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "inside")
        patch.setattr(experiment, "load_backend", lambda name, config: FakeBackend(config))
        patch.setattr(trained, "load_backend", lambda name, config: FakeBackend(config))
        assert start_training(load_config(None, SETTINGS), "torch") == 0
        yield folder


def values(folder):
    """What a mutation writes: wrong types, extreme numbers, places, names, control characters."""
    places = ["..", "/", f"{folder}/outside", f"{folder}/outside/new/toy", "/dev/zero", "~root"]
    words = ["", "a\0b", "\ud800", "\x1b[2J", "x" * 10_000, "toy", "cub", "convnet", "float64"]
    numbers = [True, 0, -1, 1, 2**31, 10**30, 1e308, float("nan"), float("inf"), 0.5]
    deep = []
    for _ in range(400):
        deep = [deep]
    return [None, [], {}, [[1]], {"a": {}}, ["a", "b"], [16384, 16384], deep] + (
        places + words + numbers
    )


def places(tree, prefix=()):
    """The path of every node of a tree but its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list) and len(prefix) < 8:
            yield from places(value, (*prefix, key))


def mutate(tree, rng, new_values):
    """Delete, replace or add one to three nodes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        *parents, last = rng.choice(list(places(tree))[:500])
        node = tree
        for key in parents:
            node = node[key]
        if rng.random() < 0.2:
            del node[last]
        elif isinstance(node, dict) and rng.random() < 0.15:
            node[rng.choice(("x", "root", "name", "\ud800"))] = copy.deepcopy(
                rng.choice(new_values)
            )
        else:
            node[last] = fresh(rng.choice(new_values))
    return tree


def fresh(value):
    """A copy; `deepcopy` could not copy the deep list."""
    return json.loads(json.dumps(value))


def files(folder):
    return {path: path.is_file() and path.stat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize("seed", range(MUTATIONS))
def test_mutated_metadata(made, seed, capsys):
    arrays, metadata = checkpoint.load(SOURCE)
    wrapped = {"format": 1, "metadata": copy.deepcopy(metadata)}
    text = json.dumps(mutate(wrapped, random.Random(seed), values(made)))
    path = Path(f"mutated{seed}.safetensors")
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"transfg": text}))
    before = files(made)
    for overrides in ([], ["data.root=data"]):
        outcome(lambda overrides=overrides: evaluate_checkpoint(path, "torch", overrides))
    assert files(made) == before
    other = Path("runs/other")
    shutil.copytree("runs/source", other)
    shutil.copy(path, other / "checkpoints/last.safetensors")
    for best in (other / "checkpoints").glob("best*"):
        best.unlink()
    changed = load_config(None, [*SETTINGS, "run.name=other"])
    outcome(lambda: start_training(changed, "torch", resume=True))
    shutil.rmtree(other)
    assert files(made) == before
    path.unlink()


def outcome(call):
    """Success or a message of sane length; any other exception fails the test."""
    try:
        call()
    except UserError as error:
        assert 20 < len(str(error)) < 20_000

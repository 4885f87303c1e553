"""Every recipe trains for two updates and evaluates, on a small tree in its data set's layout.

Models and images are small, and all trees have two classes. So recipes share shapes, and Jittor
compiles few operators. Data set, transforms, placement, splitting of patches, losses, optimiser and
schedule are those of the recipe.
"""

import csv
import math

import pytest
import trees

from transfg_core.config.loading import load_config
from transfg_core.config.vit import VitConfig
from transfg_core.experiment import start_training
from transfg_core.recipes import recipes
from transfg_core.run.metrics_log import read_records

TREES = {
    "toy": trees.cub,  # the same layout; `data.name=cub` below, since the toy set has 20 classes
    "cub": trees.cub, "cars": trees.cars_kit, "dogs": trees.dogs, "nabirds": trees.nabirds,
    "inat2017": trees.inat, "cifar100": trees.cifar100, "folder": trees.folders,
    "web-bird": trees.folders, "web-aircraft": trees.folders, "web-car": trees.folders,
}  # fmt: skip
SMALL = (
    "model.pretrained=null", "data.resize=[20, 20]", "data.crop=[16, 16]", "data.threads=1",
    "optim.warmup=1", "train.epochs=null", "train.steps=2", "train.eval_every=2",
    "train.eval_batch_size=2",
)  # fmt: skip
SMALL_VIT = (
    "model.size=tiny", "model.width=16", "model.heads=2", "model.depth=3", "model.mlp=16",
    "model.patch=8",
)  # fmt: skip
SMALL_OTHERS = {  # by model.name
    "convnet": ("model.width=4", "model.width2=6"),
    "resnet": ("model.width=4", "model.blocks=[1,1]", "model.bottleneck=false"),
    "swin": (
        "model.width=8", "model.depths=[1,1,1,2]", "model.heads=[1,1,2,2]", "model.patch=2",
        "model.window=2",
    ),
}  # fmt: skip
SMALL_OTHERS["swinfc"] = (
    *SMALL_OTHERS["swin"], "model.memories=4", "model.align_width=6", "model.fused_width=8",
)  # fmt: skip


def shrunk(recipe, root, runs):
    """The recipe with a small model, small images, and micro-batches of two images."""
    model, train = recipe.config.model, recipe.config.train
    if isinstance(model, VitConfig):
        own = [*SMALL_VIT, f"model.stride={6 if model.stride < model.patch else 8}"]
        own += ["model.patch=1", "model.stride=1"] * (model.stem != "none")  # of the stem's map
        own += ["model.top_k=3"] * (model.top_k is not None)  # of four patches
    else:
        own = list(SMALL_OTHERS[model.name])
    # a split of two images in each class cannot be drawn
    own += ["data.split=official", "data.validation=null"] if recipe.config.data.validation else []
    parts = min(train.accumulation, 2)
    own += [f"train.accumulation={parts}", f"train.batch_size={2 * parts}"]
    name = "cub" if recipe.config.data.name == "toy" else recipe.config.data.name
    own += [f"data.name={name}", f"data.root={root}", f"run.dir={runs}"]
    return load_config(recipe.file, [*recipe.command[3:], *SMALL, *own])


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_two_updates(twin, recipe, tmp_path):
    TREES[recipe.config.data.name](tmp_path / "set")
    config = shrunk(recipe, tmp_path / "set", tmp_path / "runs")
    assert start_training(config, twin.name) == 0
    run = tmp_path / "runs" / config.run.name
    records = read_records(run / "metrics.jsonl")
    updates = [record for record in records if record["kind"] == "train"]
    assert [record["update"] for record in updates] == [1, 2]
    assert all(math.isfinite(record["loss"]) for record in updates)
    last = config.optim.lr if config.optim.schedule == "constant" else 0.0
    assert [record["lr"] for record in updates] == [config.optim.lr, last]
    (evaluation,) = [record for record in records if record["kind"] == "eval"]
    assert (evaluation["update"], evaluation["images"]) == (2, 2)
    with (run / "predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2

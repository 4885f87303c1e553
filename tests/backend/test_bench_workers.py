"""`transfg bench` with real workers, at a tiny size."""

import json

import numpy as np
import pytest
from running import ROOT
from typer.testing import CliRunner

from transfg.app import app
from transfg.bench.flops import step_flops
from transfg.bench.worker import batches_of
from transfg_core.config.loading import load_config
from transfg_core.config.sections import Config

TINY = ["data.toy.train_per_class=4", "data.toy.test_per_class=2", "data.crop=32", "data.resize=32"]
TINY += ["model.depth=3", "train.batch_size=4", "train.steps=4", "optim.warmup=0"]

EVERYWHERE = [(":real-input", "train"), (":published", "infer")]
IN_TORCH = [("", "attention"), ("", "selection"), ("", "train"), (":vit", "train"), ("", "input")]


@pytest.mark.parametrize("method", ["uint8", "float32"])
@pytest.mark.parametrize("key", ["data.mixup=0.8", "data.cutmix=1.0"])
def test_mixed_images_are_read(tmp_path, method, key):
    settings = [*TINY, "model.classes=20", f"data.root={tmp_path / 'toy'}", key]
    config = load_config(ROOT / "configs/toy/quickstart.yaml", settings)
    job = {"reads": True, "backend": "loader", "method": method}
    with batches_of(job, config) as take:
        images = take() if method == "float32" else take().images
    assert images.shape == ((4, 32, 32, 3) if images.dtype == np.uint8 else (4, 3, 32, 32))
    assert images.dtype == np.float32 or (method == "uint8" and "cutmix" in key)


@pytest.mark.parametrize(("method", "work"), EVERYWHERE + IN_TORCH)
def test_work_is_measured(twin, tmp_path, method, work):
    if twin.name == "jittor" and (method, work) not in EVERYWHERE:
        pytest.skip("the same worker as in torch; a Jittor process starts slowly")
    out, turn = tmp_path / "bench.json", "4" if "real" in method or work == "input" else "2"
    subject = "loader" if work == "input" else twin.name + method
    done = CliRunner().invoke(
        app,
        ["bench", str(ROOT / "configs/toy/quickstart.yaml"), *TINY, f"data.root={tmp_path / 'toy'}"]
        + [
            "--subject",
            subject,
            "--work",
            work,
            "--batch",
            "2",
            "--rounds",
            "2",
        ]
        + ["--warmup", "0", "--turn", turn, "--threads", "1", "--out", str(out)],
    )
    assert done.exit_code == 0, done.output
    (result,) = json.loads(out.read_text(encoding="utf-8"))["measurements"]
    assert len(result["seconds"]) == 2 and min(result["seconds"]) > 0
    assert result["started"] > 0 and result["first"] > 0
    assert result["peak"] >= result["base"] > 2**20
    summary, config = result["summary"], Config.model_validate(result["config"], strict=False)
    assert summary["ratio"]["median"] == 1 and summary["images_per_second"] > 0
    assert summary["flops"] == step_flops(config, work)
    assert (summary["memory"] is not None) == (work == "train")
    assert bool(summary["selection_flops"]) == (
        method == ":real-input" or (method, work) == ("", "train")
    )
    if work != "input":
        assert result["device"]["threads"] == 1 and result["device"]["backend"] == twin.name


def test_a_model_of_the_catalogue_is_measured(twin):
    if twin.name == "jittor":
        pytest.skip("the same worker as in torch; a Jittor process starts slowly")
    arguments = ["models", "ViT-Ti/16", "--image", "32", "--measure", "train", "--batch", "2"]
    arguments += ["--backend", twin.name, "--rounds", "2", "--threads", "1", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)
    measured = record["measured"][twin.name]
    assert measured["images_per_second"] > 0 and measured["peak_bytes"] > 2**20
    assert measured["failed"] == "" and (measured["work"], measured["batch"]) == ("train", 2)

"""`transfg models`: the list, one model in full, JSON, CSV, and measured numbers."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from transfg.app import app
from transfg.bench import runner
from transfg.bench.runner import Measurement
from transfg_core.catalogue import catalogue
from transfg_core.errors import UserError


def call(*args):
    result = CliRunner().invoke(app, ["models", *args], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_list_has_every_model():
    lines = call().splitlines()
    names = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert names == [entry.name for entry in catalogue()]
    (row,) = (line for line in lines if line.startswith("ViT-B/16 "))
    assert row.split()[1:8] == ["224", "86.57", "M", "86.57", "17.56", "17.56", "11"]


def test_one_model_in_full():
    text = call("vit-b/16")
    assert "parameters  86,567,656" in text and "model.size=B model.patch=16" in text
    assert "86.567656 M parameters, 17.564 GMACs: torchvision" in text
    assert "`transfg weights torchvision.vit_b_16`" in text


def test_only_published_numbers_that_exist():
    hybrid, swinfc = call("R50+B/16"), call("SwinFC")
    assert "published   21.67 GMACs: timm, with a head of 21,843 classes" in hybrid
    assert "- M parameters" not in hybrid + swinfc and "None GMACs" not in hybrid + swinfc


def test_the_foot_says_what_is_not_counted():
    assert "GMACs: 10^9 multiply-adds of one image without part selection;" in call()


def test_names_and_another_image():
    records = json.loads(call("ViT-L/32", "ViT-H", "--image", "448", "--json"))
    assert [record["name"] for record in records] == ["ViT-L/32", "ViT-H/14"]
    assert records[0]["image"] == 448 and records[0]["published"] == []
    (usual,) = json.loads(call("ViT-L/32", "--json"))
    assert usual["parameters"] == 306535400 and records[0]["gmacs"] > 4 * usual["gmacs"]


def test_csv_holds_the_same_numbers():
    rows = list(csv.DictReader(io.StringIO(call("--csv"))))
    records = json.loads(call("--json"))
    assert [row["name"] for row in rows] == [record["name"] for record in records]
    for row, record in zip(rows, records, strict=True):
        assert int(row["parameters"]) == record["parameters"]
        assert row["weights"].split() == record["weights"]


def test_measured_numbers(monkeypatch):
    """Images per second of the median round; a failure in place of a number."""
    seen = []

    def measure(subjects, work, configs, rounds, warmup, turn, threads):
        seen.append((work, configs[0].train.batch_size, configs[0].data.crop, rounds, threads))
        good = Measurement("torch", "torch", "transfg", work, 4, {}, seconds=[1.0, 2.0, 9.0])
        good.peak = 3 * 2**20
        bad = Measurement("jittor", "jittor", "transfg", work, 4, {}, failed="out of memory")
        return [good, bad]

    monkeypatch.setattr(runner, "measure", measure)
    args = ("ViT-Ti/16", "--measure", "train", "--batch", "4", "--image", "64", "--threads", "1")
    (record,) = json.loads(call(*args, "--json"))
    assert seen == [("train", 4, (64, 64), 3, 1)]
    assert record["measured"]["torch"]["images_per_second"] == 2.0
    assert record["measured"]["torch"]["peak_bytes"] == 3 * 2**20
    assert record["measured"]["jittor"]["failed"] == "out of memory"
    (row,) = csv.DictReader(io.StringIO(call(*args, "--csv")))
    assert (row["torch_images_per_second"], row["jittor_images_per_second"]) == ("2.0", "")
    assert "train, batch 4: 2 images/s, 3 MiB" in call(*args)
    assert "out of memory" in call("ViT-Ti", "ViT-H", *args[1:])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--json", "--csv"), "expected one form of output"),
        (("--measure", "think"), "--measure think: expected one of infer, train"),
        (("--measure", "infer", "-b", "jax"), "--backend jax: expected one of torch, jittor"),
        (("--batch", "2"), "--batch: expected --measure infer or train beside it"),
        (("--rounds", "3", "--threads", "1"), "--rounds --threads: expected --measure"),
        (("--backend", "torch"), "--backend: expected --measure"),
        (("VGG",), "no model has this name"),
    ],
)
def test_what_is_refused(args, expected):
    result = CliRunner().invoke(app, ["models", *args])
    assert isinstance(result.exception, UserError) and expected in str(result.exception)

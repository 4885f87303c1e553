"""Which checkpoint a place stands for, and what is known of its model."""

import shutil

import pytest

from transfg_core.errors import UserError
from transfg_core.inference.facts import describe_transform, facts_of
from transfg_core.inference.source import read_model


def test_the_best_checkpoint_then_the_newest(train):
    run = train("train.save_every=2")
    best = read_model(run)
    assert best.path == run / "checkpoints/best.safetensors" and best.run == run
    (run / "checkpoints/best.safetensors").unlink()
    assert read_model(run).path == run / "checkpoints/last.safetensors"
    step = run / "checkpoints/step_000002.safetensors"
    assert (read_model(step).path, read_model(step).position.update) == (step, 2)


def test_averages_count_unless_switched_off(train):
    run = train("optim.ema=0.5")
    averaged, last = read_model(run), read_model(run, ["optim.ema=null"])
    names = [n for n in averaged.params if (averaged.params[n] != last.params[n]).any()]
    assert "head.bias" in names
    assert facts_of(averaged)["averaged"] and not facts_of(last)["averaged"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.width=16"], r"is model.width right\?"),
        (["model.heads=1"], "expected model.heads 2, found 1|expected model.heads 1, found 2"),
        (["data.cropp=3"], "did you mean data.crop"),
    ],
)
def test_overrides_that_do_not_fit(train, overrides, message):
    with pytest.raises(UserError, match=message):
        read_model(train(), overrides)


def test_places_without_a_model(train, tmp_path):
    with pytest.raises(UserError, match="absent: expected the folder of a run.*no such file"):
        read_model(tmp_path / "absent")
    with pytest.raises(UserError, match="photographs: expected the folder .*another folder"):
        read_model(tmp_path / "photographs")
    run = train()
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(UserError, match="expected a checkpoint in .*found none"):
        read_model(run)


def test_a_damaged_checkpoint(train):
    run = train()
    path = run / "checkpoints/best.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="cut or changed|damaged"):
        read_model(run)


def test_facts_tell_which_split_chose_the_step(train):
    model = read_model(train())
    facts = facts_of(model)
    assert facts["chosen_on"] == "test" and facts["run"] == "trial"
    assert facts["accuracy"]["images"] == 3 and 0 <= facts["accuracy"]["top1"] <= 1
    assert facts["parameters"] == sum(array.size for array in model.params.values())
    assert facts["data"]["classes"] == 2 and facts["updates"] == 4


def test_an_override_has_no_accuracy(train):
    run = train("optim.ema=0.5")
    assert facts_of(read_model(run, ["train.eval_batch_size=2", "data.threads=1"]))["accuracy"]
    for override in ("optim.ema=null", "data.resize=30", "data.exif=apply"):
        assert not facts_of(read_model(run, [override]))["accuracy"], override


def test_facts_of_the_last_step_and_of_a_validated_one(train):
    run = train("data.validation=0.2")
    assert facts_of(read_model(run))["chosen_on"] == "validation"
    last = facts_of(read_model(run / "checkpoints/last.safetensors"))
    assert last["chosen_on"] is None and last["update"] == 4
    assert last["accuracy"]["images"] == 3
    alone = run.parent / "alone.safetensors"
    shutil.copy(run / "checkpoints/best.safetensors", alone)
    facts = facts_of(read_model(alone))
    assert (facts["run"], facts["accuracy"], facts["chosen_on"]) == ("", {}, None)


def test_the_transform_in_words(train):
    config = read_model(train()).config
    assert describe_transform(config) == (
        "pixels as stored (EXIF ignored), resize the shorter side to 20 pixels (bilinear), centre "
        "crop 16 x 16 (height x width), normalisation imagenet"
    )


def test_what_the_run_did_to_its_own_images(train):
    model = read_model(train())
    assert model.cautions() == []
    (boxes,) = read_model(model.path, ["data.name=cub", "data.box_crop=true"]).cautions()
    (banner,) = read_model(model.path, ["data.name=aircraft"]).cautions()
    assert "cut yours to the object" in boxes and "lowest 20 rows" in banner

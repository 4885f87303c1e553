"""Published numbers: beside runs of their kind alone, with what differs, in their own columns."""

import pytest
from run_folders import write_run

from transfg_core.errors import UserError
from transfg_core.report import beside as module
from transfg_core.report.beside import beside, matches, other_settings, published_table
from transfg_core.report.cells import all_columns, cells_of
from transfg_core.report.published import PublishedResult, published_results
from transfg_core.run.reading import load_runs

CUB = ("data.name=cub", "data.root=data/CUB_200_2011", "model.classes=200")
OVERLAP = ("model.size=B", "model.patch=16", "model.stride=12", "data.crop=448", "data.resize=600")


def cells(*paths):
    return cells_of(load_runs(paths))


def result(**settings):
    row = {"name": "cub/x", "recipe": "cub/overlap.yaml", "dataset": "cub"}
    row |= {"method": "TransFG", "top1": 91.0, "kind": "paper", "source": "a page"}
    keys = {key.replace("__", "."): value for key, value in settings.items()}
    return PublishedResult.model_validate(row | {"settings": keys})


@pytest.fixture
def only_stated(monkeypatch):
    """The source's own settings are compared, none of its recipe."""
    monkeypatch.setattr(module, "RECIPE_KEYS", ())


def test_only_the_same_kind_of_run(tmp_path):
    (cell,) = cells(write_run(tmp_path, "a", *CUB, *OVERLAP))
    assert matches(cell, result())
    assert matches(cell, result(model__stride=12))
    assert matches(cell, result(model__stride=6, model__patch=8))  # also overlapping
    assert not matches(cell, result(model__stride=16))
    assert not matches(cell, result(loss__contrastive=False))
    assert not matches(cell, result(loss__margin=0.2))
    assert not matches(cell, result(model__fusion="mul"))
    assert not matches(cell, result().model_copy(update={"method": "ViT"}))
    assert not matches(cell, result().model_copy(update={"dataset": "cars"}))


def test_a_small_run_is_never_compared_silently(tmp_path):
    small = ("data.name=cub", "data.root=data/cub50", "model.classes=50", "model.stride=6")
    (cell,) = cells(write_run(tmp_path, "a", *small))
    found = beside(cell, published_results())
    assert found, "overlapping TransFG on CUB is published"
    for pair in found:
        assert "classes 50, not 200" in pair.others
        assert "crop 64 x 64, not 448 x 448" in pair.others
        assert "size tiny, not B" in pair.others


@pytest.mark.usefixtures("only_stated")
def test_the_same_settings_have_no_note(tmp_path):
    (cell,) = cells(write_run(tmp_path, "a", *CUB, *OVERLAP, "run.seed=3"))
    same = result(model__stride=12, data__crop=(448, 448), run__seed=42)
    assert other_settings(cell, same) == ()
    assert other_settings(cell, result(optim__lr=0.003)) == ("lr 0.03, not 0.003",)


def test_a_recipe_stands_in_for_what_the_source_leaves_out(tmp_path):
    weights = "model.pretrained=elsewhere/vit_base_patch16_224.orig_in21k/model.safetensors"
    (cell,) = cells(write_run(tmp_path, "a", *CUB, *OVERLAP, "data.crop=224", weights))
    of_recipe = result()
    known = [
        "crop 224 x 224, not 448 x 448", "steps 40, not 10000", "batch_size 32, not 64",
    ]  # fmt: skip
    assert list(other_settings(cell, of_recipe)) == known
    gone = of_recipe.model_copy(update={"recipe": "cub/none.yaml"})
    with pytest.raises(UserError, match=r"none\.yaml: expected the experiments .* keeps links"):
        other_settings(cell, gone)


@pytest.mark.usefixtures("only_stated")
def test_published_numbers_have_columns_of_their_own(tmp_path):
    settings = [*CUB, *OVERLAP]
    paths = [
        write_run(tmp_path, "t1", *settings, "run.seed=1", top1=0.4, caution="Seen"),
        write_run(tmp_path, "t2", *settings, "run.seed=2", top1=0.5),
        write_run(tmp_path, "j1", *settings, "run.seed=1", top1=0.6, backend="jittor"),
        write_run(tmp_path, "vit", *settings, "model.placement=none", top1=0.7),
    ]
    found = cells(*paths)
    row = result().model_copy(update={"hours": 2.5, "framework": "jittor"})
    table = published_table(found, all_columns(found), [row])
    assert list(table.header) == [
        "method", "torch: last top-1 %", "jittor: last top-1 %", "n",
        "published top-1 %", "published hours", "other settings", "source",
    ]  # fmt: skip
    assert table.rows == [
        ["TransFG", "45.00 ± 7.07", "60.00", "2 and 1", "91.0", "2.5", "", "paper, jittor: a page"]
    ]
    assert table.note.endswith("Seen.")


@pytest.mark.usefixtures("only_stated")
def test_what_differs_in_every_row_is_said_once(tmp_path):
    small = ("data.name=cub", "data.root=data/cub50", "model.classes=50", "model.stride=6")
    found = cells(write_run(tmp_path, "a", *small))
    rows = [result(), result(optim__lr=0.5)]
    table = published_table(found, all_columns(found), rows)
    assert "In every row also differ: classes 50, not 200." in table.note
    assert [row[-2] for row in table.rows] == ["", "lr 0.03, not 0.5"]
    (alone,) = published_table(found, all_columns(found), rows[:1]).rows
    assert alone[-2] == "classes 50, not 200"


def test_nothing_published_nothing_shown(tmp_path):
    found = cells(write_run(tmp_path, "toy"))
    assert published_table(found, all_columns(found), published_results()).rows == []


def test_the_authors_program_has_the_contrastive_loss(tmp_path):
    """Its re-runs never stand beside runs without it."""
    off = ("loss.contrastive=false",)
    on, without = cells(
        write_run(tmp_path, "a", *CUB, *OVERLAP), write_run(tmp_path, "b", *CUB, *OVERLAP, *off)
    )
    if on.settings["loss.contrastive"] is False:
        on, without = without, on
    reruns = [row for row in published_results() if row.kind == "re-run"]
    assert {pair.result.text for pair in beside(on, reruns)} >= {"91.2", "91.0", "90.8"}
    assert beside(without, reruns) == []
    of_recipe = result()
    assert "contrastive off, not on" in other_settings(without, of_recipe)
    assert not any("margin" in line for line in other_settings(without, of_recipe))

"""Recipes: every experiment and every published number has one, with a command that loads."""

import shlex
from pathlib import Path

import pytest

from transfg_core import recipes as module
from transfg_core.config.loading import differing_keys, load_config
from transfg_core.errors import UserError
from transfg_core.recipes import (
    CONFIGS,
    command_lines,
    find_recipes,
    recipes,
    settings_in_words,
    shown_path,
)
from transfg_core.report.published import published_results

ROOT = Path(__file__).parents[2]
FILES = {
    path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    for path in (ROOT / "configs").glob("*/*.yaml")
}


def test_every_file_and_every_published_number_is_a_recipe():
    names = [recipe.name for recipe in recipes()]
    assert len(set(names)) == len(names)
    assert set(names) == FILES | {result.name for result in published_results()}
    listed = [result for recipe in recipes() for result in recipe.results]
    assert sorted(map(id, listed)) == sorted(map(id, published_results()))


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_its_command_trains_it(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, verb, path, *overrides = recipe.command
    assert (program, verb) == ("transfg", "train") and path.startswith("configs/")
    assert load_config(path, overrides) == recipe.config
    assert bool(overrides) == (recipe.name not in FILES)
    assert set(recipe.header) == {"Source", "Cost", "Expected"}


def test_files_that_are_gone_are_named(tmp_path, monkeypatch):
    """A copy that does not keep links has a text file in the place of the folder."""
    (tmp_path / "configs").write_text("../configs")
    monkeypatch.setattr(module, "CONFIGS", tmp_path / "configs")
    with pytest.raises(UserError, match=r"configs: expected the experiments .* keeps links"):
        recipes.__wrapped__()


def test_runs_have_names_of_their_own():
    names = [recipe.config.run.name for recipe in recipes()]
    assert len(set(names)) == len(names)


def test_a_variant_differs_from_its_file_in_what_is_published():
    (variant,) = find_recipes("cub/reproduction_vit_overlap")
    assert variant.changes == {
        "model.placement": "none", "model.stride": 12, "train.batch_size": 4,
        "run.name": "cub_reproduction_vit_overlap",
    }  # fmt: skip
    assert (variant.method, variant.dataset) == ("ViT", "cub")
    assert [result.text for result in variant.results] == ["90.28"]
    assert "stride 12" in settings_in_words(variant) and "batch 4" in settings_in_words(variant)


@pytest.mark.parametrize(
    ("baseline", "method"),
    [("cub/vit", "cub/nonoverlap"), ("cars/vit", "cars/overlap"), ("dogs/vit", "dogs/overlap"),
     ("nabirds/vit", "nabirds/overlap"), ("inat2017/vit", "inat2017/overlap")],
)  # fmt: skip
def test_the_baseline_differs_in_the_method_alone(baseline, method):
    left, right = (find_recipes(name)[0].config for name in (baseline, method))
    keys = {line.partition(":")[0] for line in differing_keys(left, right)}
    stride = {"model.stride"} if method.endswith("/overlap") else set()
    assert keys == {"model.placement", "loss.contrastive", "run.name"} | stride


def test_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (recipe,) = find_recipes("cub/overlap")
    assert recipe.missing == ("data", "weights")
    (tmp_path / recipe.config.data.root).mkdir(parents=True)
    assert recipe.missing == ("weights",)
    weights = tmp_path / recipe.config.model.pretrained
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert recipe.missing == ()
    assert find_recipes("toy/vit")[0].missing == ()  # its images are rendered


def test_a_word_finds_a_recipe_or_a_folder():
    for word in ("cub/overlap", "configs/cub/overlap.yaml"):
        assert [recipe.name for recipe in find_recipes(word)] == ["cub/overlap"]
    dogs = {recipe.name for recipe in find_recipes("dogs")}
    assert dogs == {name for name in (recipe.name for recipe in recipes()) if "dogs/" in name}
    with pytest.raises(UserError, match=r"cub/overlop: no recipe .* the nearest is cub/overlap;"):
        find_recipes("cub/overlop")


def test_the_path_is_one_that_works_here(tmp_path, monkeypatch):
    file = CONFIGS / "toy" / "vit.yaml"
    monkeypatch.chdir(ROOT)
    assert shown_path(file) == "configs/toy/vit.yaml"
    monkeypatch.chdir(tmp_path)
    assert shown_path(file) == str(file)
    other = tmp_path / "configs" / "toy" / "vit.yaml"  # of the same name, with other content
    other.parent.mkdir(parents=True)
    other.write_text("run: {name: mine}")
    assert shown_path(file) == str(file)


@pytest.mark.parametrize("width", [1, 30, 60, 1000])
def test_command_lines(width):
    words = ("transfg", "train", "a b.yaml", "data.crop=[8, 8]", "run.name=" + "x" * 20)
    lines = command_lines(words, width)
    assert tuple(shlex.split("\n".join(lines).replace("\\\n", " "))) == words
    pieces = [shlex.split(line.removesuffix("\\")) for line in lines]
    assert all(len(line) <= width or len(own) == 1 for line, own in zip(lines, pieces, strict=True))
    assert len(lines) == {1: 5, 30: 3, 60: 2, 1000: 1}[width]
    assert command_lines((), width) == []

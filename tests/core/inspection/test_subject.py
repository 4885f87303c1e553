"""Which data set is meant: layouts that are recognised, configurations, wrong paths."""

import pytest
import trees
from trouble import clean_tree

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import FOLDERS, LISTED
from transfg_core.errors import UserError
from transfg_core.inspection.scan import scan
from transfg_core.inspection.subject import (
    FOLDER_SETS,
    LAYOUTS,
    guess_layout,
    load_subject,
    read_subject,
)


@pytest.mark.parametrize("below", ["", "inside"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_by_its_files(tmp_path, name, below):
    for group in LAYOUTS[name]:
        path = tmp_path / below / group[0].replace("*", "train")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found, mark = guess_layout(tmp_path)
    assert found == name and (tmp_path / mark).is_file() and mark.startswith(below)
    DataConfig(name=found)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("cars", trees.cars_kit), ("cars", trees.cars_combined), ("dogs", trees.dogs),
        ("nabirds", trees.nabirds), ("flowers", trees.flowers), ("pets", trees.pets),
        ("aircraft", trees.aircraft), ("food", trees.food), ("inat2017", trees.inat),
        ("cifar100", trees.cifar100), ("list", trees.text_lists),
    ],
)  # fmt: skip
def test_the_trees_of_published_sets_are_recognised_and_read(tmp_path, name, build):
    build(tmp_path)
    if name == "nabirds":
        (tmp_path / "hierarchy.txt").write_text("")
    config, _ = load_subject(tmp_path, ["data.crop=32", "data.resize=32", "data.banner=keep"])
    assert config.data.name == name
    found = scan(read_subject(config), config.data)
    assert len(found.paths) >= 4 and found.readable.all()


@pytest.mark.parametrize("name", FOLDER_SETS)
def test_sets_that_are_folders_are_recognised(tmp_path, name):
    clean_tree(tmp_path / name)
    config, assumed = load_subject(tmp_path)
    assert config.data.name == name and f"(found {name}/train)" in assumed


def test_every_reader_has_a_layout():
    assert {*LISTED, *FOLDERS} - {"toy", "folder"} == {*LAYOUTS, *FOLDER_SETS}


def test_class_folders_are_no_layout(tmp_path):
    clean_tree(tmp_path)
    config, assumed = load_subject(tmp_path)
    assert config.data.name == "folder" and config.data.split == "auto"
    assert config.data.resize == (600, 600) and config.data.crop == (448, 448)
    assert f"data.root={tmp_path}" in assumed and "(found" not in assumed


def test_overrides_win(tmp_path):
    clean_tree(tmp_path)
    config, assumed = load_subject(tmp_path, ["data.crop=96", "data.name=list", "run.seed=7"])
    assert config.data.crop == (96, 96) and config.data.resize is None
    assert config.data.name == "list" and config.run.seed == 7
    assert "data.name" not in assumed and "crop" not in assumed


def test_a_configuration_is_taken_as_it_is(tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {name: folder, root: somewhere}")
    config, assumed = load_subject(tmp_path / "mine.yaml", ["data.crop=96"])
    assert config.data.root == "somewhere" and assumed == "" and config.data.crop == (96, 96)


def test_no_such_place(tmp_path):
    with pytest.raises(UserError, match="expected a configuration .* found no such file"):
        load_subject(tmp_path / "absent")


def test_a_wrong_key_is_named(tmp_path):
    with pytest.raises(UserError, match="data.corp"):
        load_subject(tmp_path, ["data.corp=3"])
    with pytest.raises(UserError):
        load_subject(tmp_path, ["data=3"])

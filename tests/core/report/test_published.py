"""The published accuracies: every row is valid, and its settings are those of its experiment."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from transfg_core.config.loading import flatten, load_config
from transfg_core.report.published import PublishedResult, published_results

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
ROWS = published_results()
VALID = {
    "name": "cub/overlap", "recipe": "cub/overlap.yaml", "dataset": "cub", "method": "TransFG",
    "settings": {"optim.lr": 0.03}, "top1": 91.7, "kind": "paper", "source": "a paper",
}  # fmt: skip


def label(row):
    return f"{row.name}-{row.text}"


def as_configured(value):
    """A value as the dumped configuration has it."""
    return tuple(value) if isinstance(value, list) else value


def differing(row):
    """The settings of a row that its file does not have."""
    flat = flatten(load_config(CONFIGS / row.recipe).model_dump())
    assert set(row.settings) <= set(flat)
    return {key: value for key, value in row.settings.items() if flat[key] != as_configured(value)}


def test_a_row_reads():
    row = PublishedResult.model_validate(VALID)
    assert (row.top1, row.text, row.hours) == (91.7, "91.7", None)
    assert PublishedResult.model_validate(VALID | {"stated": "about 92"}).text == "about 92"


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 91.7}, {"top1": "91.7"}, {"top1": 101.0}, {"kind": "rumour"}, {"hours": 0.0},
        {"recipe": None}, {"needs": ["model.name=swin"]}, {"recipe": "../overlap.yaml"},
        {"settings": {"lr": 0.03}}, {"framework": "tensorflow"}, {"source": ""}, {"name": "cub"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_row_is_refused(change):
    with pytest.raises(ValidationError):
        PublishedResult.model_validate(VALID | change)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_settings_are_those_of_the_experiment(row):
    """The file itself, or the file with the settings that the name of the row stands for."""
    config = load_config(CONFIGS / row.recipe)
    assert row.dataset == config.data.name
    changed = differing(row)
    if row.name == row.recipe.removesuffix(".yaml"):
        assert changed == {}
        return
    assert changed and row.name.startswith(row.recipe.partition("/")[0] + "/")
    overrides = [f"{key}={value}" for key, value in changed.items()]
    flat = flatten(load_config(CONFIGS / row.recipe, overrides).model_dump())
    assert {key: flat[key] for key in row.settings} == {
        key: as_configured(value) for key, value in row.settings.items()
    }


def test_a_name_stands_for_one_experiment():
    experiments = {}
    for row in ROWS:
        experiments.setdefault(row.name, []).append((row.recipe, differing(row)))
    for name, found in experiments.items():
        assert all(each == found[0] for each in found), name
    variants = [(recipe, str(changed)) for (recipe, changed), *_ in experiments.values()]
    assert len(set(variants)) == len(variants), "two names for one experiment"


def test_no_row_is_given_twice():
    keys = [(row.name, row.top1, row.framework, row.source) for row in ROWS]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_the_file_states_the_number(row):
    """The head of the file names the numbers of its own settings."""
    if row.name != row.recipe.removesuffix(".yaml") or row.kind == "target":
        return
    text = (CONFIGS / row.recipe).read_text(encoding="utf-8")
    published = re.sub(r"\n#\s+", " ", text.partition("# Published:")[2].partition("\n\n")[0])
    number = re.escape(row.text.removeprefix("at most "))
    assert re.search(rf"(?<![\d.]){number}0?(?!\d|\.\d)", published), published

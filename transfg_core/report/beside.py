"""Published accuracies beside those of the runs: in columns of their own, with their source.

A published number stands beside a configuration with the same data set, method, split, contrastive
loss, margin and fusion, as far as the source states them. Every other stated setting that differs
is named, so that nobody compares a small run with a paper's large one.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Any, NamedTuple

from transfg_core.config.loading import flatten, load_config
from transfg_core.data.datasets.official import official
from transfg_core.report.axes import AXES, BACKEND, Settings
from transfg_core.report.cells import Cell, Column, cautions, mean_text, text_of, values_of
from transfg_core.report.measures import TOP1
from transfg_core.report.published import CONFIGS, PublishedResult, no_experiments
from transfg_core.report.tables import Table

PAPER_PATCH = 16  # of a source that states a stride alone; all models of the papers are of /16
RECIPE_KEYS = (
    "model.size", "model.patch", "model.fusion", "model.pretrained", "data.crop",
    "loss.contrastive", "loss.margin", "train.steps", "train.batch_size",
)  # fmt: skip
MATCHED = ("split", "contrastive", "margin", "fusion")
NOTE = (
    "Published numbers are those of their sources, never of these runs. Each stands beside the "
    "configurations with the same data set, method, split, contrastive loss, margin and fusion, as "
    "far as the source states them. `other settings` lists what else differs, the run's value "
    "first: the source's, and of its recipe in configs/ the model, crop, weights, loss, updates "
    "and batch. Where anything differs, the two numbers are not one experiment."
)


class Beside(NamedTuple):
    """A published result and the settings in which a configuration differs from it."""

    result: PublishedResult
    others: tuple[str, ...]  # `key: the run's, not the source's`


def beside(cell: Cell, results: Sequence[PublishedResult]) -> list[Beside]:
    """The published results of a configuration, those with the fewest other settings first."""
    found = [Beside(one, other_settings(cell, one)) for one in results if matches(cell, one)]
    return sorted(found, key=lambda pair: len(pair.others))


def matches(cell: Cell, result: PublishedResult) -> bool:
    """Whether data set, method and every axis that the source states are those of the cell."""
    axes = {axis.name: axis for axis in AXES}
    if (result.dataset, result.method) != (
        cell.settings["data.name"],
        axes["method"].value(cell.settings),
    ):
        return False
    stated = _complete(cell.settings, result.settings)
    return all(
        axes[name].value(stated) == axes[name].value(cell.settings)
        for name in MATCHED
        if any(key in result.settings for key in axes[name].keys)
    )


def _complete(settings: Settings, stated: Mapping[str, Any]) -> Settings:
    """The run's settings, replaced by those that a source states."""
    patch = {"model.patch": PAPER_PATCH} if "model.stride" in stated else {}
    return {**settings, **patch, **stated}


def other_settings(cell: Cell, result: PublishedResult) -> tuple[str, ...]:
    """Settings of the source, or of its recipe, that the cell does not have.

    A recipe stands in for the facts without which no accuracy can be judged (RECIPE_KEYS).
    """
    recipe = _recipe(result.recipe)
    unused = {key for axis in AXES if not axis.value(cell.settings) for key in axis.keys}
    keys = [key for key in RECIPE_KEYS if key in recipe and key not in unused]
    carried = {key: recipe[key] for key in keys}
    if recipe.get("train.epochs") is not None or "train.epochs" in result.settings:
        carried.pop("train.steps", None)  # the data set decides
    wanted = carried | {key: _plain(value) for key, value in result.settings.items()}
    wanted.pop("run.seed", None)
    facts = official(cell.runs[0].config.data)
    wanted |= {"model.classes": facts.classes} if facts else {}
    lines = []
    for key, value in wanted.items():
        own, other = _shown(key, cell.settings.get(key)), _shown(key, value)
        if own != other and key in cell.settings:
            lines.append(f"{key.rpartition('.')[2]} {own}, not {other}")
    return tuple(lines)


def _shown(key: str, value: Any) -> str:
    """A value as text; of a path the file and its folder, which name the weights."""
    if key == "model.pretrained" and value is not None:
        return "/".join(PurePath(str(value)).parts[-2:])
    return text_of(value)


@cache
def _recipe(path: str) -> Settings:
    """The settings of a file below configs/.

    Raises:
        UserError: there is no such file, as in a checkout that lost its links.
    """
    file = CONFIGS / path
    if not file.is_file():
        raise no_experiments(file)
    return {key: _plain(value) for key, value in flatten(load_config(file).model_dump()).items()}


def _plain(value: Any) -> Any:
    """The value as JSON has it: a list for a tuple."""
    return json.loads(json.dumps(value))


def published_table(
    cells: Sequence[Cell], columns: Sequence[Column], results: Sequence[PublishedResult]
) -> Table:
    """One row for each configuration and published number; one column for each backend."""
    shown = [cell for cell in cells if cell.values(TOP1.value)]
    configurations: dict[tuple[str, int], dict[str, Cell]] = {}
    for cell in shown:
        configurations.setdefault(cell.key, {})[cell.backend] = cell
    backends = next((values_of(shown, one) for one in columns if one.name == BACKEND), [])
    labels = [one for one in columns if one.name != BACKEND]
    matched = [
        (own, pair)
        for own in configurations.values()
        for pair in beside(next(iter(own.values())), results)
    ]
    everywhere = in_all([pair.others for _, pair in matched])
    rows = []
    for own, (result, others) in matched:
        first = next(iter(own.values()))
        here = [line for line in others if line not in everywhere]
        texts = [column.value(first) for column in labels]
        rows.append([*texts, *_numbers(own, backends), *_published(result), "; ".join(here)])
        rows[-1].append(_source(result))
    header = [*(one.name for one in labels), *(f"{one}: last top-1 %" for one in backends), "n"]
    header += ["published top-1 %", "published hours", "other settings", "source"]
    common = [f"In every row also differ: {'; '.join(everywhere)}."] if everywhere else []
    note = " ".join([NOTE, *common, *cautions(shown)])
    right = range(len(labels), len(header) - 2)
    return Table("Beside published numbers", note, header, rows, right)


def _numbers(own: Mapping[str, Cell], backends: Sequence[str]) -> list[str]:
    """The accuracy on each backend, and over how many runs."""
    numbers = [own[one].values(TOP1.value) if one in own else [] for one in backends]
    counts = dict.fromkeys(str(len(found)) for found in numbers if found)
    return [*map(mean_text, numbers), " and ".join(counts)]


def _published(result: PublishedResult) -> list[str]:
    return [result.text, "" if result.hours is None else f"{result.hours:g}"]


def in_all(lists: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines that all of several lists have, if there are several."""
    if len(lists) < 2:
        return []
    return [line for line in lists[0] if all(line in other for other in lists)]


def _source(result: PublishedResult) -> str:
    kind = f"{result.kind}, {result.framework}" if result.framework else result.kind
    note = f" ({result.note})" if result.note else ""
    return f"{kind}: {result.source}{note}"

"""Recipes: the experiments of configs/, and everything that a published number was measured with.

A recipe is a file of configs/ (`cub/overlap`), or such a file with other settings
(`cub/reproduction_margin_0.2`). `report/published.yaml` names the latter.
"""

import json
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from transfg_core.config.loading import flatten, load_config
from transfg_core.config.sections import Config
from transfg_core.config.swinfc import SwinFCConfig
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.params.merge import nearest
from transfg_core.report import axes
from transfg_core.report.published import (
    CONFIGS,
    PublishedResult,
    no_experiments,
    published_results,
)

FIELD = re.compile(r"^# (Source|Cost|Expected): (.*(?:\n#   .*)*)", re.MULTILINE)


class Recipe(NamedTuple):
    """An experiment by its name, and what is published about it."""

    name: str
    file: Path
    config: Config  # the file with `changes`
    changes: Mapping[str, Any]  # dotted key -> value, where the recipe differs from its file
    header: Mapping[str, str]  # of the file: Source, Cost, Expected
    results: tuple[PublishedResult, ...]

    @property
    def dataset(self) -> str:
        """`data.name`."""
        return self.config.data.name

    @property
    def method(self) -> str:
        """The model in words, as in reports."""
        return axes.method(flatten(self.config.model_dump(mode="json")))

    @property
    def command(self) -> tuple[str, ...]:
        """The words of the command that trains it."""
        return ("transfg", "train", shown_path(self.file), *map(assignment, self.changes.items()))

    @property
    def missing(self) -> tuple[str, ...]:
        """What a run lacks here: `data`, `weights`."""
        data, weights = self.config.data, self.config.model.pretrained
        found = data.name == "toy" or Path(data.root).is_dir()  # toy: rendered by the run
        return ("data",) * (not found) + ("weights",) * bool(
            weights and not Path(weights).is_file()
        )


@cache
def recipes() -> tuple[Recipe, ...]:
    """Every recipe: the files by name, each before its variants.

    Raises:
        UserError: the files are not there.
    """
    results: dict[str, list[PublishedResult]] = {}
    for result in published_results():
        results.setdefault(result.name, []).append(result)
    files = {
        path.relative_to(CONFIGS).with_suffix("").as_posix(): path
        for path in sorted(CONFIGS.glob("*/*.yaml"))
    }
    if not files:
        raise no_experiments(CONFIGS)
    listed = []
    for name, path in files.items():
        listed.append(_recipe(name, path, results.pop(name, [])))
        own = [key for key, rows in results.items() if rows[0].recipe == f"{name}.yaml"]
        listed += [_recipe(variant, path, results.pop(variant)) for variant in own]
    return tuple(listed)


def find_recipes(word: str) -> list[Recipe]:
    """The recipe of a name, or all recipes of a folder such as `cub`.

    Raises:
        UserError: there is none.
    """
    word = word.removeprefix("configs/").removesuffix(".yaml").rstrip("/")
    found = [recipe for recipe in recipes() if recipe.name == word]
    found = found or [recipe for recipe in recipes() if recipe.name.startswith(f"{word}/")]
    if not found:
        names = [recipe.name for recipe in recipes()]
        raise UserError(
            f"{word}: no recipe has this name{nearest(word, names)}; `transfg recipes` lists all"
        )
    return found


def shown_path(file: Path) -> str:
    """`configs/...` where the current folder has this file, else its full path."""
    short = Path("configs") / file.relative_to(CONFIGS)
    return str(short if short.exists() and short.samefile(file) else file)


def assignment(item: tuple[str, Any]) -> str:
    """An override of the command line: `key=value`, with the value in YAML."""
    key, value = item
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def command_lines(words: tuple[str, ...], width: int) -> list[str]:
    """A command for a shell, broken between words where a line would be too long."""
    lines: list[str] = []
    for word in map(shlex.quote, words):
        if lines and len(f"{lines[-1]} {word} \\") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def settings_in_words(recipe: Recipe) -> str:
    """The settings by which recipes differ, such as `B/16 stride 12, 448 px, ...`."""
    config = recipe.config
    model, data, loss, train = config.model, config.data, config.loss, config.train
    words = [f"{data.crop[0]} px"]
    if isinstance(model, VitConfig):
        patches = f"{model.size}/{model.patch} stride {model.stride}"
        hybrid = f"size {model.size}, stem {model.stem}"
        words.insert(0, patches if model.stem == "none" else hybrid)
        words += selection_in_words(model)
    if isinstance(model, SwinFCConfig):
        words.insert(0, f"size {model.size}, window {model.window}")
        stages = ", ".join(f"{weight:g}" for weight in loss.stages)
        words += [f"weights of stages {stages}"] * model.branches
    length = f"{train.epochs:g} epochs" if train.epochs else f"{train.steps} updates"
    words += [f"{length} of batch {train.batch_size}", f"{config.optim.name} {config.optim.lr:g}"]
    words.append(f"contrastive, margin {loss.margin:g}" if loss.contrastive else "cross-entropy")
    more = {"AutoAugment": data.auto_augment, "frozen parameters": config.optim.frozen}
    return ", ".join(words + [word for word, given in more.items() if given])


def selection_in_words(model: VitConfig) -> list[str]:
    """The selection of parts, where it is not the paper's."""
    if not model.selects_parts:
        return []
    if model.selection != "fused":
        return [f"selection {model.selection}, {model.part_count} parts"]
    return [f"fusion {model.fusion}"] * (model.fusion != "matmul")


def _recipe(name: str, path: Path, results: list[PublishedResult]) -> Recipe:
    """The recipe of a file; if the name is not the file's, with the settings of the results."""
    config, changes = load_config(path), dict[str, Any]()
    flat = flatten(config.model_dump(mode="json"))
    for key, value in results[0].settings.items() if results else ():
        if flat[key] != value:
            changes[key] = value
    if changes:
        changes["run.name"] = name.replace("/", "_")
        config = load_config(path, map(assignment, changes.items()))
    header = {
        field: re.sub(r"\s*\n#\s+", " ", text)
        for field, text in FIELD.findall(path.read_text(encoding="utf-8"))
    }
    return Recipe(name, path, config, changes, header, tuple(results))

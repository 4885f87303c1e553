"""`transfg recipes`."""

import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from transfg_core.recipes import Recipe

WIDTH = 100  # columns of a line
UNMEASURED = "not measured yet"
KINDS = ("paper", "reproduction", "re-run", "target")
FOOT = (
    "Numbers are published top-1 accuracies in percent; `others` are what users of the authors'",
    "program report, and targets. `transfg recipes NAME` names the sources and all settings.",
)


def recipes(
    which: Annotated[
        str | None,
        typer.Argument(
            help="a recipe such as cub/overlap, or a folder of configs/ such as cub", metavar="NAME"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List experiments with their published numbers, and the commands that run them.

    The column `here` says whether the folder data.root and the file model.pretrained are here.
    `transfg recipes NAME` prints one recipe in full, with every setting.
    """
    from transfg_core import recipes as core

    found = core.find_recipes(which) if which else list(core.recipes())
    alone = len(found) == 1 and bool(which)
    if as_json:
        records = [record(recipe) for recipe in found]
        print(json.dumps(records[0] if alone else records, indent=1, ensure_ascii=False))
    elif alone:
        print("\n".join(in_full(found[0])))
    else:
        print("\n".join(table(found)))


def table(found: "list[Recipe]") -> list[str]:
    """One recipe in three lines: numbers, settings, command. Lines have up to 100 characters."""
    from transfg_core.recipes import command_lines, settings_in_words

    rows: list[tuple[str, ...]] = [("recipe", "method", "paper", "reproduction", "others", "here")]
    for recipe in found:
        paper, reproduction, reruns, targets = (numbers(recipe, kind) for kind in KINDS)
        others = [*reruns, *(f"target {number}" for number in targets)]
        here = f"no {recipe.missing[0]}" if recipe.missing else "ready"
        columns = (", ".join(column) for column in (paper, reproduction, others))
        rows.append((recipe.name, recipe.method, *columns, here))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    text = lines[:1]
    for recipe, line in zip(found, lines[1:], strict=True):
        cost = recipe.header.get("Cost", UNMEASURED)
        words = settings_in_words(recipe)
        text += [
            line,
            *indented(words if cost.startswith(UNMEASURED) else f"{words}. Cost: {cost}"),
        ]
        text += ["    " + part for part in command_lines(recipe.command, WIDTH - 4)]
    return [*text, "", *FOOT]


def indented(words: str) -> list[str]:
    """Lines of a text, indented by four."""
    return textwrap.wrap(
        words, WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
    )


def numbers(recipe: "Recipe", kind: str) -> list[str]:
    """The published numbers of one kind, each once."""
    texts = (result.text for result in recipe.results if result.kind == kind)
    return list(dict.fromkeys(texts))


def in_full(recipe: "Recipe") -> list[str]:
    """All facts about a recipe, and its complete configuration."""
    from transfg_core.config.loading import dump_config
    from transfg_core.recipes import command_lines, settings_in_words, shown_path

    facts = [("data set", recipe.dataset), ("method", recipe.method)]
    facts.append(("settings", settings_in_words(recipe)))
    for result in recipe.results:
        hours = f", {result.hours:g} hours" if result.hours else ""
        backend = f" ({result.framework})" if result.framework else ""
        note = f"; {result.note}" if result.note else ""
        text = f"{result.text} %{hours}: {result.source}{backend}{note}"
        facts.append((result.kind, text))
    changed = ", with the changes in the command" if recipe.changes else ""
    facts.append(("file", shown_path(recipe.file) + changed))
    facts += [(field.lower(), text) for field, text in recipe.header.items()]
    facts.append(("here", ", ".join(f"no {what}" for what in recipe.missing) or "ready"))
    lines = [recipe.name]
    for what, text in facts:
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=f"  {what:<14}", subsequent_indent=" " * 16,
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
    command = command_lines(recipe.command, WIDTH - 2)
    return [*lines, "", *("  " + part for part in command), "", dump_config(recipe.config).rstrip()]


def record(recipe: "Recipe") -> dict[str, Any]:
    """A recipe for JSON."""
    from transfg_core.recipes import assignment, shown_path

    return {
        "name": recipe.name,
        "file": shown_path(recipe.file),
        "command": list(recipe.command),
        "overrides": [assignment(item) for item in recipe.changes.items()],
        "dataset": recipe.dataset,
        "method": recipe.method,
        "settings": recipe.config.model_dump(mode="json"),
        "published": [result.model_dump(mode="json") for result in recipe.results],
        "source": recipe.header.get("Source"),
        "cost": recipe.header.get("Cost"),
        "expected": recipe.header.get("Expected"),
        "data_found": "data" not in recipe.missing,
        "weights_found": "weights" not in recipe.missing,
    }

"""`transfg weights`."""

from typing import Annotated

import typer

COLUMNS = ("name", "arch", "image", "head", "normalise", "megabytes", "licence", "training")


def weights(
    which: Annotated[
        str | None,
        typer.Argument(help="a name from the list, or an architecture such as B/16 or L"),
    ] = None,
) -> None:
    """List public weights for model.pretrained, and the commands that fetch them.

    Without an argument: one line for each file. With one: all facts about the files that fit.
    Nothing is downloaded.
    """
    from transfg_core.checkpoints.known import find_weights, known_weights

    if which is None:
        print(_table([row.model_dump() | {"arch": row.architecture} for row in known_weights()]))
        print("\n`transfg weights NAME` shows how to get one; model.pretrained takes it as it is.")
        return
    for number, row in enumerate(find_weights(which)):
        print("\n" * bool(number) + row.name)
        for what, text in row.facts():
            print(f"  {what:<15}{text}")


def _table(rows: list[dict[str, object]]) -> str:
    """Rows as columns of equal width."""
    text = [COLUMNS, *([str(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in text) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in text)

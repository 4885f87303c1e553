"""Arguments that several commands share."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from transfg_core.backend import BACKENDS
from transfg_core.errors import UserError


def one_of(option: str, value: str, known: Collection[str]) -> str:
    """Return the value if it is among the known ones.

    Raises:
        UserError: it is not.
    """
    if value not in known:
        raise UserError(f"{option} {value}: expected one of {', '.join(known)}")
    return value


BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        help="torch or jittor",
        callback=lambda name: one_of("--backend", name, tuple(BACKENDS)),
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value, such as optim.lr=0.01", metavar="[KEY=VALUE]..."),
]
Checkpoint = Annotated[Path, typer.Argument(help="a .safetensors checkpoint of a run")]

"""Arguments that several commands share."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

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


def require_folder(option: str, path: Path | None) -> None:
    """Refuse a file whose folder does not exist, before any work; None passes.

    Raises:
        UserError: there is no such folder.
    """
    if path and not path.parent.is_dir():
        raise UserError(f"{option} {path}: no such folder; make it first")


def write_json(path: Path | None, record: Any) -> None:
    """Write a result to `path` as JSON; do nothing without a path."""
    from transfg_core.checkpoints.file import replace_file
    from transfg_core.run.metrics_log import clean

    if path:
        replace_file(path, (json.dumps(clean(record), indent=1) + "\n").encode())


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

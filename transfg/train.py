"""`transfg train`."""

from pathlib import Path
from typing import Annotated

import typer

from transfg.options import BackendName, Overrides
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError


def train(
    config: Annotated[
        Path, typer.Argument(help="a YAML file, such as configs/toy/quickstart.yaml")
    ],
    overrides: Overrides = None,
    backend: BackendName = "torch",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume this run, or start it if it has no checkpoint.")
    ] = False,
    resume_from: Annotated[
        Path | None,
        typer.Option(
            help="Start a new run at this checkpoint of either backend. With --resume, the run "
            "resumes from its own checkpoint as soon as it has one."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the existing run and start again.")
    ] = False,
) -> None:
    """Train a model, and write config.yaml, metrics and checkpoints into run.dir/run.name."""
    from transfg_core.experiment import start_training

    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")
    settings = load_config(config, overrides or [])
    raise typer.Exit(start_training(settings, backend, resume, resume_from, overwrite))

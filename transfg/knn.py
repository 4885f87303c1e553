"""`transfg knn`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from transfg.options import BackendName, Overrides
from transfg_core.errors import UserError


def knn(
    source: Annotated[
        Path, typer.Argument(help="a YAML file with model.pretrained, or a checkpoint of a run")
    ],
    overrides: Overrides = None,
    backend: BackendName = "torch",
    k: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="how many training images vote; the first is for the predictions, others follow "
            "in the result. May be repeated. [default: 20, then 1, 5, 10, 50, 100, 200]",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="votes weigh exp(cosine / temperature)")
    ] = 0.07,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the existing run and start again.")
    ] = False,
) -> None:
    """Classify test images by their nearest training images, and print JSON. Nothing is trained.

    The features are those that the head receives, of training and test images alike with the
    transform of evaluations. The run folder is run.dir/run.name; the name ends in -knn if it is not
    given.
    """
    from transfg_core.knn import NUMBERS, Vote, run_knn
    from transfg_core.run.metrics_log import clean

    if not 0.002 <= temperature <= 1000:  # exp(1 / temperature) is finite
        raise UserError(f"--temperature {temperature}: expected a number from 0.002 to 1000")
    vote = Vote(tuple(k or NUMBERS), temperature)
    print(json.dumps(clean(run_knn(source, backend, overrides or [], vote, overwrite))))

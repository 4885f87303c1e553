"""`transfg evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from transfg.options import BackendName, Checkpoint, Overrides, check_file


def evaluate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    backend: BackendName = "torch",
    predictions: Annotated[
        Path | None, typer.Option(help="Write each image's prediction to this CSV file.")
    ] = None,
) -> None:
    """Evaluate a checkpoint of either backend on the test split, and print JSON.

    data.root=FOLDER evaluates other images: those in FOLDER/val or FOLDER/test; in one flat folder
    of class folders, the test images of the run's split.csv, or every image if none of them is in
    that list. The folder needs no training images, and not all of the classes.
    """
    from transfg_core.checkpoints.file import replace_file
    from transfg_core.run.metrics_log import clean, csv_text, prediction_rows
    from transfg_core.trained import evaluate_checkpoint

    check_file("--predictions", predictions, suffixes=(".csv",))
    result, dataset = evaluate_checkpoint(checkpoint, backend, overrides or [], predictions)
    record = {"checkpoint": str(checkpoint), "backend": backend} | result.record()
    print(json.dumps(clean(record)), flush=True)  # also if the predictions cannot be written
    if predictions:
        names = [dataset.test.ids[row] for row in result.index]
        rows = prediction_rows(names, result.labels, result.logits)
        replace_file(predictions, csv_text(rows).encode())

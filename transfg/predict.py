"""`transfg predict`."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from transfg.options import BackendName, one_of, split_overrides

FORMATS = ("table", "json", "csv")


def predict(
    run: Annotated[
        Path, typer.Argument(help="the folder of a run, a checkpoint, or an exported folder")
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            help="files, folders, patterns; - is standard input: an image, or a list of files. "
            "key=value changes the configuration, such as data.exif=apply",
            metavar="IMAGE... [KEY=VALUE]...",
        ),
    ],
    backend: BackendName = "torch",
    top: Annotated[int, typer.Option(min=1, help="how many classes of each image")] = 5,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="table, json (one object in each line) or csv",
            callback=lambda name: one_of("--format", name, FORMATS),
        ),
    ] = "table",
) -> None:
    """Classify images with a trained model, as the evaluations of its run did. No data set needed.

    Of a run, the best checkpoint counts. Images pass through the evaluation transform that the
    checkpoint holds. An unreadable image is named and does not stop the others.

    Exit codes: 0 success; 1 an image could not be read; 2 wrong usage or input.
    """
    from transfg_core.inference.inputs import find_inputs
    from transfg_core.inference.output import Writer
    from transfg_core.inference.predictor import load
    from transfg_core.run.progress import Progress

    words, overrides = split_overrides(images)
    inputs = find_inputs(words, sys.stdin.buffer if sys.stdin else None)
    model = load(run, backend, *overrides)
    notes = Progress("predict")
    for note in (*inputs.notes, *model.model.cautions()):
        notes.say(f"note: {note}")
    classes = min(top, len(model.classes))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal need not have every letter
        sys.stdout.reconfigure(errors="backslashreplace")
    writer = Writer(form, classes, max(len(name) for name, _ in inputs.images))
    sys.stdout.write(writer.header())
    failed = 0
    for batch in model.stream(inputs.images):
        failed += sum(result is None for _, result in batch)
        sys.stdout.writelines(writer.line(crop, result) for crop, result in batch)
        sys.stdout.flush()
    if failed:
        notes.say(f"{failed} of {len(inputs.images)} images could not be read")
        raise typer.Exit(1)

"""`transfg explain`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from transfg.options import BackendName, check_folder, split_overrides
from transfg_core.errors import UserError


def explain(
    run: Annotated[
        Path, typer.Argument(help="the folder of a run, a checkpoint, or an exported folder")
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="files, folders, patterns; - is standard input: an image, or a list of files. "
            "key=value changes the configuration, such as data.exif=apply",
            metavar="[IMAGE]... [KEY=VALUE]...",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="the folder for figures and arrays")] = Path("explain"),
    backend: BackendName = "torch",
) -> None:
    """Show what a trained model looks at: a figure and its arrays for each image.

    A figure has the selected patches with their heads, the part scores, attention rollout, Grad-CAM
    and the saliency of pixels, as far as the model has them, on the whole upright photograph. The
    arrays (.npz) are for plots of your own. An unreadable image is named and does not stop the
    others.

    Exit codes: 0 success; 1 an image could not be read; 2 wrong usage or input.
    """
    from transfg_core.explain.images import explain_images
    from transfg_core.inference.inputs import find_inputs
    from transfg_core.inference.predictor import load
    from transfg_core.run.progress import Progress

    check_folder("--out", out)
    words, overrides = split_overrides(images or [])
    if not words:
        raise UserError("IMAGE: expected files, folders or patterns, found none; name one")
    inputs = find_inputs(words, sys.stdin.buffer)
    model = load(run, backend, *overrides)
    notes = Progress("explain")
    for note in (*inputs.notes, *model.model.cautions()):
        notes.say(f"note: {note}")
    failed = 0
    for path in explain_images(model, inputs.images, out, notes.say):
        failed += path is None
        if path is not None:
            print(path, flush=True)
    if failed:
        notes.say(f"{failed} of {len(inputs.images)} images could not be read")
        raise typer.Exit(1)

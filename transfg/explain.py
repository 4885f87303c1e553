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
    model: Annotated[
        bool, typer.Option("--model", help="figures of the model and its run; needs no image")
    ] = False,
) -> None:
    """Show what a trained model looks at: a figure and its arrays for each image.

    A figure has the selected patches with their heads, the part scores, attention rollout, Grad-CAM
    and the saliency of pixels, as far as the model has them, on the whole upright photograph. The
    arrays (.npz) are for plots of your own. An unreadable image is named and does not stop the
    others.

    With --model: filters of the first layer, similarity of position embeddings, confusion matrix,
    hardest images, batches as the model gets them, and part hits. Some need the run's data set.

    Exit codes: 0 success; 1 an image could not be read; 2 wrong usage or input.
    """
    check_folder("--out", out)
    words, overrides = split_overrides(images or [])
    if not words and not model:
        raise UserError(
            "IMAGE: expected files, folders or patterns, found none; name one, or add --model"
        )
    failed = _explain_images(run, words, overrides, out, backend) if words else 0
    if model:
        _explain_model(run, overrides, out, backend)
    if failed:
        raise typer.Exit(1)


def _explain_images(
    run: Path, words: list[str], overrides: list[str], out: Path, backend: str
) -> int:
    """Write the figures of images; return how many could not be read."""
    from transfg_core.explain.images import explain_images
    from transfg_core.inference.inputs import find_inputs
    from transfg_core.inference.predictor import load
    from transfg_core.run.progress import Progress

    inputs = find_inputs(words, sys.stdin.buffer if sys.stdin else None)
    predictor = load(run, backend, *overrides)
    notes = Progress("explain")
    for note in (*inputs.notes, *predictor.model.cautions()):
        notes.say(f"note: {note}")
    failed = 0
    for path in explain_images(predictor, inputs.images, out, notes.say):
        failed += path is None
        if path is not None:
            print(path, flush=True)
    if failed:
        notes.say(f"{failed} of {len(inputs.images)} images could not be read")
    return failed


def _explain_model(run: Path, overrides: list[str], out: Path, backend: str) -> None:
    """Write the figures of the model and its run."""
    from transfg_core.explain.model_figures import Subject, model_figures
    from transfg_core.inference.source import read_model
    from transfg_core.run.progress import Progress

    named = any(item.partition("=")[0] in ("data", "data.root") for item in overrides)
    subject = Subject(read_model(run, overrides), backend, named)
    for path in model_figures(subject, out, Progress("explain").say):
        print(path, flush=True)

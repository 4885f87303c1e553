"""`transfg parts`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from transfg.options import BackendName, Checkpoint, Overrides, check_file


def parts(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="the PNG to write")],
    overrides: Overrides = None,
    backend: BackendName = "torch",
    images: Annotated[int, typer.Option(min=1, help="how many test images")] = 8,
    heat: Annotated[
        Literal["scores", "rollout", "saliency"],
        typer.Option(
            help="what dims the second view: part scores, attention rollout, or saliency of pixels"
        ),
    ] = "scores",
) -> None:
    """Draw test images with the patches that a checkpoint's model selects."""
    from transfg_core.explain.parts import draw_parts

    check_file("--out", out, make_parents=True, suffixes=(".png",))
    draw_parts(checkpoint, backend, overrides or [], images, out, heat)
    print(out)

"""`transfg convert`."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path, typer.Argument(help="*_checkpoint.bin of the authors' program, or a run's checkpoint")
    ],
    target: Annotated[
        Path, typer.Argument(help="the .safetensors file to write, or .npz of a run's checkpoint")
    ],
) -> None:
    """Convert a checkpoint of the authors' program into weights for model.pretrained.

    A plain Vision Transformer that was trained here becomes an .npz under Google's names, which
    other programs read too.
    """
    from transfg_core.backend import load_authors_reader
    from transfg_core.checkpoints.export import export_vit_npz

    if target.suffix == ".npz":
        print(export_vit_npz(source, target))
        return
    print(load_authors_reader().convert(source, target))

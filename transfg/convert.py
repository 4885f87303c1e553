"""`transfg convert`."""

from pathlib import Path
from typing import Annotated

import typer

from transfg.options import check_file


def convert(
    source: Annotated[
        Path, typer.Argument(help="*_checkpoint.bin of the authors' program, or a run's checkpoint")
    ],
    target: Annotated[
        Path, typer.Argument(help="file to write: .safetensors, or .npz for a run's checkpoint")
    ],
) -> None:
    """Convert a checkpoint of the authors' program into weights for model.pretrained.

    Or convert the checkpoint of a plain Vision Transformer that was trained here into an .npz with
    Google's names, which other programs can read.
    """
    from transfg_core.backend import load_authors_reader
    from transfg_core.checkpoints.export import export_vit_npz

    check_file("target", target)
    if target.suffix == ".npz":
        print(export_vit_npz(source, target))
        return
    print(load_authors_reader().convert(source, target))

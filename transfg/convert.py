"""`transfg convert`."""

from pathlib import Path
from typing import Annotated

import typer

from transfg.options import check_file


def convert(
    source: Annotated[
        Path, typer.Argument(help="a run's checkpoint, or weights of another program")
    ],
    target: Annotated[Path, typer.Argument(help="file to write: .safetensors or .npz")],
) -> None:
    """Convert weights of plain Vision Transformers, ResNets and Swin Transformers.

    The checkpoint of a run becomes an .npz with Google's names or a .safetensors with timm's; only
    a Vision Transformer has Google's.
    A PyTorch file (.bin, .pth) of another program, or of TransFG's authors, becomes a .safetensors
    for model.pretrained, without a pickle; other weights become an .npz with Google's names.
    model.pretrained also takes all these files as they are.
    """
    from transfg_core.checkpoints.export import convert as convert_file

    check_file("target", target, source=source)
    print(convert_file(str(source), target))

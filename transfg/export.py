"""`transfg export`."""

from pathlib import Path
from typing import Annotated

import typer

from transfg.options import check_folder


def export(
    run: Annotated[
        Path, typer.Argument(help="a run's folder, a checkpoint, or an exported folder")
    ],
    folder: Annotated[Path, typer.Argument(help="the folder to write")],
    onnx: Annotated[
        bool,
        typer.Option("--onnx", help="Also write model.onnx; needs PyTorch and the extra onnx."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an earlier export, its model card included."),
    ] = False,
) -> None:
    """Write a trained model as a folder that others can load and publish.

    It holds model.safetensors, config.json and a model card with every number of the run. timm
    loads the folder of a plain Vision Transformer, a Swin Transformer or a ResNet that it has.
    """
    from transfg_core.export.folder import export as export_model
    from transfg_core.inference.source import read_model

    check_folder("folder", folder)
    names = export_model(read_model(run), folder, onnx, overwrite)
    print(f"{folder}: {', '.join(names)}")

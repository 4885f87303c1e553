"""Write a model for inference as ONNX: uint8 crops in, logits and selected parts out.

    check(config)
    write(config, params, classes, path)

The input is uint8 (B, H, W, 3), as image libraries give it, and the model normalises it: so nobody
can normalise wrongly, and a batch takes a quarter of the bytes. The batch is dynamic; height and
width are those of `data.crop`, since positions belong to them. The model computes in float32.

The exporter is that of PyTorch 2.6 and later (`torch.onnx.export(dynamo=True)`), which traces the
model without running it on numbers.

Shapes: B batch, H and W crop, C classes, S selected patches.
"""

import importlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfg_core.backend import Arrays
from transfg_core.checkpoints.file import replace_file
from transfg_core.config.sections import NORMALISATION, Config
from transfg_core.errors import RunFailed, UserError
from transfg_core.machine import install_command
from transfg_core.parts import draw_parts
from transfg_torch.models import MODELS
from transfg_torch.models.taps import no_tap
from transfg_torch.pixels import Normalise

OPSET = 18  # of ONNX 1.13: the first that PyTorch's exporter writes without a conversion
PACKAGES = ("onnx", "onnxscript")
LARGEST = 1_900_000_000  # bytes of arrays in one file; a protobuf has at most 2 GiB
EXAMPLE = 2  # images of the traced batch; the exporter takes a batch of 1 for a constant


class Classifier(nn.Module):
    """From uint8 crops to logits, and to part indices if the model selects parts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.normalise = Normalise(config)
        self.model = MODELS[config.model.name](config.model, config.data.crop)
        # the parts at the centre are the same for every image
        drawn = draw_parts(config, np.zeros((1, *config.data.crop, 3), np.uint8))
        self.register_buffer("parts", None if drawn is None else torch.from_numpy(drawn))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3) uint8 -> (B, C) float32, and (B, S) int64 counted from 1."""
        more = () if self.parts is None else (self.parts.expand(images.shape[0], -1),)
        output = self.model(self.normalise(images), no_tap, *more)
        index = () if output.part_index is None else (output.part_index,)
        return (output.answer, *index)


def check(config: Config) -> None:
    """Refuse, before any work, what cannot be written.

    Raises:
        UserError: a package is missing, or the parts are drawn from the numbers of the image.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--onnx: expected the packages {' and '.join(PACKAGES)}, found no "
            f"{' and no '.join(missing)}; install them: {install_command('onnx')}"
        )
    if config.model.draws_parts and config.model.selection != "center":
        raise UserError(
            f"--onnx: expected parts that the model chooses, found model.selection "
            f"{config.model.selection}, which NumPy draws from a checksum of the pixels; leave "
            "--onnx out"
        )


def write(config: Config, params: Arrays, classes: Sequence[str], path: Path) -> None:
    """Write `path`; arrays of more than 2 GB go into a second file beside it.

    Raises:
        UserError: see `check`.
        RunFailed: the file cannot be written.
    """
    check(config)
    run = config.run.model_copy(update={"precision": "float32", "compile": False})
    model = Classifier(config.model_copy(update={"run": run})).eval()
    model.model.load_state_dict(
        {name: torch.from_numpy(value.astype(np.float32)) for name, value in params.items()}
    )
    names = ["logits", "part_index"] if config.model.selects_parts else ["logits"]
    images = torch.zeros(EXAMPLE, *config.data.crop, 3, dtype=torch.uint8)
    with torch.no_grad(), quiet():
        model(images)  # fills the caches of indices with tensors that hold numbers
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            optimize=True,
            verbose=False,
        )
    (entry,) = program.model.graph.inputs
    assert not isinstance(entry.shape[0], int), "an operation has fixed the size of the batch"
    program.model.metadata_props.update(metadata(config, classes))
    proto = without_traces(program.model_proto)
    size = sum(value.nbytes for value in model.state_dict().values())
    if size <= LARGEST:
        replace_file(path, proto.SerializeToString())
        return
    try:
        beside = {"save_as_external_data": True, "location": f"{path.name}.data"}
        importlib.import_module("onnx").save_model(proto, str(path), **beside)
    except OSError as error:
        raise RunFailed(f"{path}: cannot write {size} bytes: {error}; free some space") from error


def without_traces(proto: Any) -> Any:
    """The model without the exporter's notes, which name folders of this machine."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    return proto


def metadata(config: Config, classes: Sequence[str]) -> Mapping[str, str]:
    """What a user of the file alone needs: classes, and the transform before the crop."""
    mean, deviation = NORMALISATION[config.data.normalise]
    return {
        "classes": json.dumps(list(classes)),
        "data.resize": json.dumps(config.data.resize),
        "data.crop": json.dumps(config.data.crop),
        "data.interpolation": config.data.interpolation,
        "normalisation inside": json.dumps({"mean": mean, "std": deviation}),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's own notes, which name files of PyTorch and no setting of the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Checkpoints of TransFG's published program: read them without running code, write safetensors.

The format is torch.save of `{'model': state_dict}`, or of a bare state dict.
`transfg_core.checkpoints.authors` translates the names. No twin: the files are PyTorch's.
"""

import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from transfg_core.backend import Arrays
from transfg_core.checkpoints.authors import Dimensions, convert_arrays, infer_architecture
from transfg_core.checkpoints.file import replace_file
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes
from transfg_core.params.merge import as_float, refuse, strict_merge, summary

PARALLEL_PREFIX = "module."  # torch.nn.DataParallel and DistributedDataParallel

KIND = "is it a checkpoint of the published program ({'model': state_dict})?"

# Exceptions of torch.load for truncated or damaged files, and for files of another kind.
DAMAGED = (
    OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, LookupError,
    AssertionError, OverflowError, struct.error,
)  # fmt: skip


def read_published(path: str | Path) -> Arrays:
    """Published name -> float32 array, without `module.` prefixes.

    Raises:
        UserError: the file is missing, damaged or of another kind, or it holds anything but named
            tensors. Code in it is refused and not run.
    """
    tree = _load(path)
    if isinstance(tree, dict) and isinstance(tree.get("model"), dict):
        tree = tree["model"]
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"{path}: expected named tensors, found {type(tree).__name__}; {KIND}")
    arrays: Arrays = {}
    problems = []
    for key, value in tree.items():
        name = str(key).removeprefix(PARALLEL_PREFIX)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            kind = getattr(value, "dtype", type(value).__name__)
            problems.append(f"{key}: expected a tensor of real numbers, found {kind}")
        elif value.layout is not torch.strided or value.is_quantized or name in arrays:
            problems.append(f"{key}: expected a plain tensor, named once")
        else:
            arrays[name] = as_float(value.detach().float().numpy())
    refuse(str(path), problems)
    return arrays


def convert(source: str | Path, target: str | Path) -> str:
    """Write a published checkpoint as safetensors under canonical names; return a report.

    The file at `target` is replaced in one step, after all checks.

    Raises:
        UserError: as in `read_published`, or names or shapes do not form a complete model.
        RunFailed: the target cannot be written.
    """
    if Path(target).suffix != ".safetensors":
        raise UserError(f"{target}: expected a name ending in .safetensors")
    renamed = convert_arrays(read_published(source))
    architecture = infer_architecture({name: array.shape for name, array in renamed.items()})
    shapes = _model_shapes(architecture)
    arrays = strict_merge(shapes, renamed, str(source))
    data = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    replace_file(Path(target), safetensors.numpy.save(data))
    return f"{source} -> {target}\n{architecture.describe()}\n{summary(shapes)}"


def _load(path: str | Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols in files that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: expected tensors only, found something else, which could run code: refused, "
            f"no code was run ({_refused(error)}); {KIND}"
        ) from error
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"{path}: expected a PyTorch checkpoint, found a cut or damaged file, or a file of "
            f"another kind ({reason}); copy it again"
        ) from error


def _refused(error: Exception) -> str:
    """What PyTorch refused, without PyTorch's advice to load the file unsafely."""
    name = re.search(r"GLOBAL (\S+)", str(error))
    return f"it names {name[1]}" if name else "it is not a pickle of tensors"


def _model_shapes(architecture: Dimensions) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters; they do not depend on the heads or on the grid of patches."""
    model = VitConfig(
        width=architecture.width, depth=max(architecture.depth, 2), mlp=architecture.mlp, heads=1,
        patch=architecture.patch, classes=architecture.classes,
    )  # fmt: skip
    size = (architecture.patch, architecture.patch * (architecture.tokens - 1))
    return param_shapes(model, size)

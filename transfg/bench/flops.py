"""Floating-point operations of a step, and the peak rates of devices.

The architecture's file counts one forward pass of one image. It leaves out part selection and
recomputation that saves memory. A training step counts as three forward passes.
"""

from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig
from transfg_core.models import vit
from transfg_core.models.layout import architecture

# Dense peak in FLOP/s by a part of the device's name and by `run.precision`, from the makers' data
# sheets: tensor cores without sparsity, float32 without TF32.
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"float32": 67e12, "bfloat16": 989.4e12},
    "H100 80GB HBM3": {"float32": 67e12, "bfloat16": 989.4e12},
    "A100": {"float32": 19.5e12, "bfloat16": 312e12},
}


def step_flops(config: Config, work: str) -> float | None:
    """Operations of one step of `train` or `infer` over its batch; None for other work."""
    passes = {"train": 3, "infer": 1}.get(work)
    image = architecture(config.model).forward_flops(config.model, config.data.crop)
    return passes and passes * config.train.batch_size * image


def selection_flops(config: Config) -> float | None:
    """Operations of the part selection of one image; None without part selection by `matmul`."""
    model = config.model
    if not isinstance(model, VitConfig) or not model.selects_parts:
        return None
    if (model.selection, model.fusion) != ("fused", "matmul"):
        return None
    return vit.selection_flops(model, config.data.crop)


def peak_flops(device: str, precision: str) -> float | None:
    """The device's peak in FLOP/s; None if it is unknown."""
    for name, peaks in PEAKS.items():
        if name in device:
            return peaks.get(precision)
    return None

"""Floating-point operations of a step, and what devices can do.

The architecture's file counts one image forward; part selection, and what is computed twice to
save memory, are not counted. A training step counts three forward passes.
"""

from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig
from transfg_core.models import vit
from transfg_core.models.layout import architecture

# Dense peak in FLOP/s by words of the device's name and by `run.precision`, from the makers' data
# sheets; tensor cores without sparsity, float32 without TF32.
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"float32": 67e12, "bfloat16": 989.4e12},
    "H100 80GB HBM3": {"float32": 67e12, "bfloat16": 989.4e12},
    "A100": {"float32": 19.5e12, "bfloat16": 312e12},
}


def step_flops(config: Config, work: str) -> float | None:
    """One step of `train` or `infer` over its batch; None of anything else."""
    passes = {"train": 3, "infer": 1}.get(work)
    image = architecture(config.model).forward_flops(config.model, config.data.crop)
    return passes and passes * config.train.batch_size * image


def selection_flops(config: Config) -> float | None:
    """Part selection of one image; None where nothing is selected by `matmul`."""
    model = config.model
    if not isinstance(model, VitConfig) or not model.selects_parts or model.fusion != "matmul":
        return None
    return vit.selection_flops(model, config.data.crop)


def peak_flops(device: str, precision: str) -> float | None:
    """The device's peak in FLOP/s, where it is known."""
    for name, peaks in PEAKS.items():
        if name in device:
            return peaks.get(precision)
    return None

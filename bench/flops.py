"""Floating-point operations of a model, counted from its sizes.

A product of (m, k) and (k, n) counts 2 m k n; norms, softmax, GELU and additions are not counted,
nor is part selection, nor what is computed twice to save memory. A training step counts three
forward passes. Source: Chowdhery et al. 2022 (arXiv 2204.02311), appendix B, for the convention.

Shapes: N patches, T = N + 1 tokens, D width, M width of the MLP, P patch, K heads, C classes.
"""

from transfg_core.config import Config
from transfg_core.params import grid_size

# Dense peak in FLOP/s by words of the device's name and by `run.precision`, from the makers' data
# sheets; tensor cores without sparsity, float32 without TF32.
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"float32": 67e12, "bfloat16": 989.4e12},
    "H100 80GB HBM3": {"float32": 67e12, "bfloat16": 989.4e12},
    "A100": {"float32": 19.5e12, "bfloat16": 312e12},
}


def block_flops(queries: int, config: Config) -> float:
    """One encoder block over `queries` tokens."""
    width, hidden = config.model.width or 0, config.model.mlp or 0
    linear = 4 * width * width + 2 * width * hidden
    return 2.0 * queries * linear + 4.0 * queries * queries * width


def forward_flops(config: Config) -> float:
    """One image forward."""
    model = config.model
    rows, columns = grid_size(config.data.crop, model)
    width, patches, depth = model.width or 0, rows * columns, model.depth or 0
    embed = 2.0 * patches * 3 * model.patch**2 * width
    head = 2.0 * width * (model.classes or 0)
    last = patches + 1 if model.placement == "none" else 1 + (model.heads or 0)
    blocks = (depth - 1) * block_flops(patches + 1, config) + block_flops(last, config)
    return embed + blocks + head


def selection_flops(config: Config) -> float:
    """Part selection of one image by `matmul`: a row through one map after another."""
    model = config.model
    rows, columns = grid_size(config.data.crop, model)
    tokens, layers = rows * columns + 1, (model.depth or 0) - 2
    per_map = 2.0 * tokens * tokens * ((model.width or 0) + (model.heads or 0))
    return layers * per_map


def step_flops(config: Config, work: str) -> float | None:
    """One step of `train` or `infer` over its batch; None of anything else."""
    passes = {"train": 3, "infer": 1}.get(work)
    return passes and passes * config.train.batch_size * forward_flops(config)


def peak_flops(device: str, precision: str) -> float | None:
    """The device's peak in FLOP/s, where it is known."""
    for name, peaks in PEAKS.items():
        if name in device:
            return peaks.get(precision)
    return None

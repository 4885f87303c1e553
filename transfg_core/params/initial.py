"""Initial values of a model's parameters, seeded by name."""

import zlib
from collections.abc import Collection, Mapping

import numpy as np

from transfg_core.backend import Array, Arrays
from transfg_core.config.model import ModelConfig
from transfg_core.models.layout import architecture, param_shapes, param_specs
from transfg_core.models.rows import ParamSpec, Shape, resolve


def initial_params(
    model: ModelConfig,
    image_size: tuple[int, int],
    seed: int,
    only: Collection[str] | None = None,
) -> Arrays:
    """Dict: canonical name -> float32 initial value, of all parameters or of those in `only`.

    Each array has its own random stream, keyed by the seed and its name. So adding or removing a
    parameter does not change the others.
    """
    sizes = architecture(model).sizes(model)
    specs = param_specs(model)
    return {
        name: _draw(specs[name], shape, sizes, np.random.default_rng([seed, _crc32(name)]))
        for name, shape in param_shapes(model, image_size).items()
        if only is None or name in only
    }


def _draw(
    spec: ParamSpec, shape: Shape, sizes: Mapping[str, int], rng: np.random.Generator
) -> Array:
    if spec.init == "zeros":
        return np.zeros(shape, np.float32)
    if spec.init == "ones":
        return np.ones(shape, np.float32)
    if spec.init == "near_zero":
        return rng.normal(0.0, 1e-6, shape).astype(np.float32)
    if spec.init == "normal":  # Liu et al. 2021, Swin's published program
        return rng.normal(0.0, 0.02, shape).astype(np.float32)
    if spec.init == "xavier":  # Glorot and Bengio 2010, equation 16
        bound = (6 / sum(shape)) ** 0.5
        return rng.uniform(-bound, bound, shape).astype(np.float32)
    fan = float(np.prod(resolve(spec.fan, sizes)))
    if spec.init == "kaiming":  # He et al. 2015 (arXiv 1502.01852), equation 14
        return rng.normal(0.0, (2 / fan) ** 0.5, shape).astype(np.float32)
    bound = fan**-0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def _crc32(name: str) -> int:
    return zlib.crc32(name.encode())

"""What `transfg bench` times besides whole steps: one layer's attention, and part selection.

Twin: `transfg_jt/baseline/workloads.py`.

Shapes: B batch, T tokens, D width, L layers.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from transfg_core.config.sections import Config
from transfg_core.models.vit import grid_size, require_vit
from transfg_torch.attention import attention
from transfg_torch.backend import TorchBackend
from transfg_torch.baseline.stored_maps import StoredMapsTransFG, attend_with_map, multiply_maps
from transfg_torch.models.parts import fuse_rows


def stored_maps_backend(config: Config) -> TorchBackend:
    """A backend that computes like the published program.

    Raises:
        UserError: the model is not a Vision Transformer.
    """
    require_vit(config.model, "the published method")
    return TorchBackend(config, StoredMapsTransFG)


def draw_tokens(backend: TorchBackend, batch: int, count: int) -> list[Tensor]:
    """`count` random arrays (B, T, D), for queries, keys and values."""
    config, rng = backend.config, np.random.default_rng(0)
    model = require_vit(config.model, "transfg bench --work")
    rows, columns = grid_size(config.data.crop, model)
    shape = (batch, rows * columns + 1, model.width)
    arrays = [backend.to_tensor(rng.standard_normal(shape)) for _ in range(count)]
    if config.run.precision == "bfloat16":
        arrays = [x.bfloat16() for x in arrays]
    return arrays


def attention_step(backend: TorchBackend, batch: int, stored: bool) -> Callable[[], None]:
    """Forward and backward pass of one layer's attention, without its linear layers."""
    heads = backend.config.model.heads
    *inputs, weights = draw_tokens(backend, batch, 4)
    # torch only: Jittor gives gradients of any array
    inputs = [x.requires_grad_() for x in inputs]

    def step() -> None:
        x = attend_with_map(*inputs, heads)[0] if stored else attention(*inputs, heads)
        grads = torch.autograd.grad((x * weights).sum(), inputs)
        backend.fetch({"sum": sum(grad.sum() for grad in grads)})  # one scalar, to copy little

    return step


def selection_step(backend: TorchBackend, batch: int, stored: bool) -> Callable[[], None]:
    """Part scores of all patches from the queries and keys of L - 1 layers, or from their maps."""
    model = backend.config.model
    layers = model.depth - 1
    tokens = draw_tokens(backend, batch, 2 * layers)
    queries, keys = tokens[:layers], tokens[layers:]
    with torch.no_grad():
        pairs = zip(queries, keys, strict=True)
        maps = [attend_with_map(q, k, k, model.heads)[1] for q, k in pairs] if stored else []

    def step() -> None:
        with torch.no_grad():
            if stored:
                scores = multiply_maps(maps)[:, :, 0]
            else:
                scores = fuse_rows(queries, keys, model.heads, model.fusion)
        backend.fetch({"scores": scores})

    return step

"""Optimisers and gradient clipping, in PyTorch.

Source: SGD with momentum as in docs/architecture.md ("What the numbers must be"); Adam, Kingma
and Ba 2015 (arXiv 1412.6980), algorithm 1; AdamW, Loshchilov and Hutter 2019 (arXiv 1711.05101).
Twin: `transfg_jt/optim.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from transfg_core.config.sections import OptimConfig

# State arrays of each optimiser under canonical names -> the framework's own key.
SLOTS: dict[str, dict[str, str]] = {  # native: the values are each framework's own words
    "SGD": {"momentum": "momentum_buffer"},
    "Adam": {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
    "AdamW": {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
}


def make_optimizer(
    params: Mapping[str, Tensor], groups: Mapping[str, tuple[float, float]], config: OptimConfig
) -> torch.optim.Optimizer:
    """One optimiser over all parameters.

    `groups` gives each name its learning-rate scale and weight decay; parameters that share both
    form one group. The rate itself is set at every update.
    """
    members: dict[tuple[float, float], list[Tensor]] = {}
    for name, param in params.items():
        members.setdefault(groups[name], []).append(param)
    tree: list[dict[str, Any]] = [
        {"params": group, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), group in members.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(tree, lr=0.0, momentum=config.momentum)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(tree, lr=0.0, betas=config.betas, eps=config.eps)


def optimizer_slots(
    optimizer: torch.optim.Optimizer, params: Mapping[str, Tensor], updates: int | None = None
) -> dict[str, dict[str, Tensor]]:
    """State tensors by slot and canonical parameter name, made (as zeros) where absent.

    With `updates`, the optimiser's count of updates is set too (Adam's bias correction).
    """
    slots: dict[str, dict[str, Tensor]] = {}
    for slot, key in SLOTS[type(optimizer).__name__].items():
        slots[slot] = {}
        for name, param in params.items():
            state = optimizer.state[param]
            if state.get(key) is None:
                state[key] = torch.zeros_like(param)
            if slot.startswith("exp_avg"):
                state.setdefault("step", torch.tensor(0.0))
                if updates is not None:
                    state["step"] = torch.tensor(float(updates))
            slots[slot][name] = state[key]
    return slots


def global_norm(grads: Sequence[Tensor]) -> Tensor:
    """L2 norm over all gradients together: scalar."""
    # torch.nn.utils.get_total_norm adds up one by one on the CPU: 4e-5 short for a 3072 x 768
    # matrix of ViT-B, 7e-4 for 4096 x 4096. sum() adds by pairs and is exact to rounding.
    return torch.sqrt(torch.stack([(grad * grad).sum() for grad in grads]).sum())


def clip_gradients(grads: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Scale all gradients in place by max_norm / (norm + 1e-6) where that is below 1.

    Returns the global L2 norm before clipping; None as the limit only measures.
    """
    norm = global_norm(grads)
    if max_norm is not None:
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        for grad in grads:
            grad.mul_(factor)
    return norm

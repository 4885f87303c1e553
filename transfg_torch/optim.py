"""Optimisers and gradient clipping, in PyTorch.

Source: SGD with momentum as in docs/spec.md; Adam, Kingma and Ba 2015 (arXiv 1412.6980),
algorithm 1; AdamW, Loshchilov and Hutter 2019 (arXiv 1711.05101).
Twin: `transfg_jt/optim.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from transfg_core.config.sections import OptimConfig

# For each optimiser: canonical name of a state array -> the framework's key.
SLOTS: dict[str, dict[str, str]] = {  # native: the keys are the framework's
    "SGD": {"momentum": "momentum_buffer"},
    "Adam": {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
    "AdamW": {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
}


def make_optimizer(
    params: Mapping[str, Tensor], groups: Mapping[str, tuple[float, float]], config: OptimConfig
) -> torch.optim.Optimizer:
    """One optimiser over the trained parameters.

    `groups` maps each name to its learning-rate scale and weight decay; parameters that share both
    form one group. The learning rate itself is set at every update.
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
    optimizer_class = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return optimizer_class(tree, lr=0.0, betas=config.betas, eps=config.eps)


def optimizer_slots(
    optimizer: torch.optim.Optimizer, params: Mapping[str, Tensor], updates: int | None = None
) -> dict[str, dict[str, Tensor]]:
    """State tensors by slot and canonical parameter name; missing ones are created as zeros.

    With `updates`, also set the optimiser's count of updates (for Adam's bias correction).
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


def update_averages(
    averages: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    decay: float,
) -> None:
    """Move each average towards its parameter, in place: e ← e + (1 - decay) (w - e)."""
    for name, average in averages.items():
        gap = params[name].detach() - average
        average.add_(gap * (1 - decay))


def global_norm(grads: Sequence[Tensor]) -> Tensor:
    """L2 norm of all gradients together: scalar."""
    # Not torch.nn.utils.get_total_norm: on the CPU it sums sequentially, and is too small for large
    # matrices. sum() is pairwise.
    return torch.sqrt(torch.stack([(grad * grad).sum() for grad in grads]).sum())


def clip_gradients(grads: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Scale all gradients in place by max_norm / (norm + 1e-6) where that is below 1.

    Returns the global L2 norm before clipping. With `max_norm` None, only measure the norm.
    """
    norm = global_norm(grads)
    if max_norm is not None:
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        for grad in grads:
            grad.mul_(factor)
    return norm

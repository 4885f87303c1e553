"""Optimisers and gradient clipping, in Jittor.

Source: SGD with momentum as in docs/spec.md; Adam, Kingma and Ba 2015 (arXiv 1412.6980),
algorithm 1; AdamW, Loshchilov and Hutter 2019 (arXiv 1711.05101).
Twin: `transfg_torch/optim.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jittor as jt
from jittor import Var

from transfg_core.config.sections import OptimConfig
from transfg_jt.ops.exact import number

# For each optimiser: canonical name of a state array -> the framework's key.
SLOTS: dict[str, dict[str, str]] = {  # native: the keys are the framework's
    "SGD": {"momentum": "values"},
    "Adam": {"exp_avg": "m", "exp_avg_sq": "values"},
    "AdamW": {"exp_avg": "m", "exp_avg_sq": "values"},
}


class SGD(jt.optim.SGD):  # native: Jittor's has rate and momentum in float32
    """SGD with momentum, with constants in the parameters' precision."""

    def step(self, loss: Var | None = None, retain_graph: bool = False) -> None:
        """One update from the gradients of `backward`."""
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for p, g, v in zip(group["params"], group["grads"], group["values"], strict=True):
                v.update(v * number(self.momentum, v) + (g + p * number(decay, p)))
                p.update(p - v * number(rate, v))
        self.post_step()


class Adam(jt.optim.Adam):  # native: Jittor's adds eps to √v before the bias correction
    """Adam with eps added to √v after the bias correction, as in the paper's algorithm 1."""

    def step(self, loss: Var | None = None, retain_graph: bool = False) -> None:
        """One update from the gradients of `backward`."""
        self.pre_step(loss, retain_graph)
        for group in self.param_groups:
            beta1, beta2 = self.betas
            step_size = group["lr"] / (1 - beta1**self.n_step)
            root = (1 - beta2**self.n_step) ** 0.5
            for p, g, v, m in zip(
                group["params"], group["grads"], group["values"], group["m"], strict=True
            ):
                g = self.decay(p, g, group["lr"], group["weight_decay"])
                m.update(m + (g - m) * number(1 - beta1, m))
                v.update(v + (g * g - v) * number(1 - beta2, v))
                size = jt.sqrt(v) / number(root, v) + number(self.eps, v)
                p.update(p - m * number(step_size, m) / size)
        self.post_step()

    def decay(self, p: Var, g: Var, lr: float, weight_decay: float) -> Var:
        """Return the gradient with the decay added."""
        return g + p * number(weight_decay, p)


class AdamW(Adam):  # native: Jittor's keeps float32 state for float64 parameters
    """Adam with decoupled weight decay: of the parameters, not of the gradient."""

    def decay(self, p: Var, g: Var, lr: float, weight_decay: float) -> Var:
        """Shrink the parameter; return the gradient unchanged."""
        p.update(p * number(1 - lr * weight_decay, p))
        return g


def make_optimizer(
    params: Mapping[str, Var], groups: Mapping[str, tuple[float, float]], config: OptimConfig
) -> jt.optim.Optimizer:
    """One optimiser over the trained parameters.

    `groups` maps each name to its learning-rate scale and weight decay; parameters that share both
    form one group. The learning rate itself is set at every update.
    """
    members: dict[tuple[float, float], list[Var]] = {}
    for name, param in params.items():
        members.setdefault(groups[name], []).append(param)
    tree: list[dict[str, Any]] = [
        {"params": group, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), group in members.items()
    ]
    if config.name == "sgd":
        return SGD(tree, lr=0.0, momentum=config.momentum)  # jittor: the class above
    optimizer_class = Adam if config.name == "adam" else AdamW  # jittor: the classes above
    return optimizer_class(tree, lr=0.0, betas=config.betas, eps=config.eps)


def optimizer_slots(  # native: Jittor creates the state at once, in lists by group
    optimizer: jt.optim.Optimizer, params: Mapping[str, Var], updates: int | None = None
) -> dict[str, dict[str, Var]]:
    """State tensors by slot and canonical parameter name; missing ones are created as zeros.

    With `updates`, also set the optimiser's count of updates (for Adam's bias correction).
    """
    if updates is not None:
        optimizer.n_step = updates
    names = {id(param): name for name, param in params.items()}
    return {
        slot: {
            names[id(param)]: value
            for group in optimizer.param_groups
            for param, value in zip(group["params"], group[key], strict=True)
        }
        for slot, key in SLOTS[type(optimizer).__name__].items()
    }


def update_averages(
    averages: Mapping[str, Var],
    params: Mapping[str, Var],
    decay: float,
) -> None:
    """Move each average towards its parameter, in place: e ← e + (1 - decay) (w - e)."""
    for name, average in averages.items():
        gap = params[name].detach() - average
        # jittor: exact in float64, and it has no add_
        average.update(average + gap * number(1 - decay, average))


def global_norm(grads: Sequence[Var]) -> Var:  # native: Jittor sums sequentially, see below
    """L2 norm of all gradients together: scalar."""
    # Jittor's CPU reductions sum sequentially in float32, and one sum over a large array is too
    # small. So sum axis by axis, the last axis first (pos_embed has only one row).
    squares = []
    for grad in grads:
        square = grad * grad
        for _ in grad.shape[1:]:
            square = square.sum(-1)
        squares.append(square.sum())
    return jt.sqrt(jt.concat(squares).sum())


def clip_gradients(grads: Sequence[Var], max_norm: float | None) -> Var:
    """Scale all gradients in place by max_norm / (norm + 1e-6) where that is below 1.

    Returns the global L2 norm before clipping. With `max_norm` None, only measure the norm.
    """
    norm = global_norm(grads)
    if max_norm is not None:
        scale = number(max_norm, norm) / (norm + number(1e-6, norm))  # jittor only: exact
        factor = jt.clamp(scale, max_v=1.0)  # jittor: in float64
        for grad in grads:
            grad.update(grad * factor)  # jittor: it has no mul_
    return norm

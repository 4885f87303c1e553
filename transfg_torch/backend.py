"""The PyTorch backend: one model, one optimiser update, one evaluation step.

Implements `transfg_core.backend.Backend`. Twin: `transfg_jt/backend.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfg_core.backend import Array, Arrays, Batch
from transfg_core.config import Config
from transfg_core.machine import peak_rss
from transfg_core.params import param_groups, split_state, step_seed, strict_merge
from transfg_torch import runtime
from transfg_torch.loss import compute_losses
from transfg_torch.model import TransFG
from transfg_torch.optim import clip_gradients, global_norm, make_optimizer, optimizer_slots

Handle = dict[str, Tensor]


class TorchBackend:
    """TransFG on the first CUDA device, or on the CPU; float32."""

    name = "torch"

    def __init__(self, config: Config) -> None:
        self.config = config
        # torch only: Jittor has one device for all, set by runtime.prepare
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = TransFG(config.model, config.data.crop).to(self.device)
        self.params = dict(self.model.named_parameters())
        self.reset_optimizer()

    def reset_optimizer(self) -> None:
        """A new optimiser with zero state, at update 0."""
        groups = param_groups(list(self.params), self.config.optim)
        self.optimizer = make_optimizer(self.params, groups, self.config.optim)
        self.updates = 0

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(param.shape) for name, param in self.params.items()}

    def load_params(self, arrays: Mapping[str, Array]) -> None:
        self.assign_params(strict_merge(self.param_shapes(), arrays, "load_params"))
        self.reset_optimizer()

    def assign_params(self, arrays: Arrays) -> None:
        """Overwrite the parameters' values; names and shapes are the model's."""
        # torch: parameters take values only without a graph
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(torch.from_numpy(arrays[name]))

    def state(self) -> Arrays:
        arrays = {f"param/{name}": param for name, param in self.params.items()}
        for slot, values in optimizer_slots(self.optimizer, self.params).items():
            arrays |= {f"{slot}/{name}": value for name, value in values.items()}
        return self.fetch(arrays) | {"optim/updates": np.array(self.updates, np.int64)}

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        slots = optimizer_slots(self.optimizer, self.params)
        params, stored, updates = split_state(arrays, self.param_shapes(), slots)
        self.assign_params(params)
        self.reset_optimizer()
        self.updates = updates
        for slot, values in optimizer_slots(self.optimizer, self.params, updates).items():
            for name, value in values.items():
                value.copy_(torch.from_numpy(stored[slot][name]))

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and labels (B,) as tensors on the model's device."""
        images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
        # torch only: from pinned memory the copy does not wait for the update before
        if self.device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        # torch: Jittor has one device for all
        return images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def train_step(self, micro_batches: Sequence[Batch], lr: float) -> Handle:
        self.updates += 1
        # dropout is a function of (seed, update), so that a resumed run draws the same masks
        torch.manual_seed(step_seed(self.config.run.seed, self.updates))
        self.model.train()
        self.optimizer.zero_grad()
        parts: list[Handle] = []
        for batch in micro_batches:
            images, labels = self.to_device(batch)
            output = self.model(images)
            losses = compute_losses(output, labels, self.config.loss)
            (losses.total / len(micro_batches)).backward()
            correct = output.logits.argmax(dim=-1) == labels
            parts.append(describe(losses, correct))
        grads = [param.grad for param in self.params.values()]
        norm = clip_gradients(grads, self.config.optim.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.optimizer.step()
        means = {key: sum(part[key] for part in parts) / len(parts) for key in parts[0]}
        means["grad_norm"] = norm
        return means

    def eval_step(self, images: Array) -> Handle:
        self.model.eval()
        with torch.no_grad():
            output = self.model(torch.from_numpy(images).to(self.device))
        handle = {"logits": output.logits}
        return handle if output.part_index is None else handle | {"part_index": output.part_index}

    def fetch(self, handle: Handle) -> Arrays:
        return {name: value.detach().cpu().numpy().copy() for name, value in handle.items()}

    def trace(self, batch: Batch) -> Arrays:
        self.model.eval()
        taps: Handle = {}

        def record(name: str, value: Tensor) -> Tensor:
            taps[name] = value
            return value

        images, labels = self.to_device(batch)
        losses = compute_losses(self.model(images, record), labels, self.config.loss)
        grads = torch.autograd.grad(losses.total, list(self.params.values()))
        taps |= {"loss": losses.total, "cross_entropy": losses.cross_entropy}
        taps |= {"contrastive": losses.contrastive, "grad_norm": global_norm(grads)}
        taps |= {f"grad/{name}": grad for name, grad in zip(self.params, grads, strict=True)}
        return self.fetch(taps)

    def device_info(self) -> dict[str, Any]:  # native: Jittor tells no peak of the device
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else peak_rss()
        return runtime.device_info() | {"peak_memory_bytes": peak}


def describe(losses: Any, correct: Tensor) -> Handle:
    """What one micro-batch reports: losses and the share of images classified right."""
    return {
        "loss": losses.total.detach(),
        "cross_entropy": losses.cross_entropy.detach(),
        "contrastive": losses.contrastive.detach(),
        "accuracy": correct.float().mean(),
    }


def make_backend(config: Config) -> TorchBackend:
    """The entry point that `transfg_core.backend.load_backend` calls."""
    return TorchBackend(config)

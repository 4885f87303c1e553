"""The PyTorch backend: one model, one optimiser update, one evaluation step.

Implements `transfg_core.backend.Backend`. Twin: `transfg_jt/backend.py`.
This file is longer than most, as one class with the methods of that protocol.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfg_core.backend import FLOAT_TYPES, Array, Arrays, Batch
from transfg_core.config.sections import Config
from transfg_core.machine import peak_rss
from transfg_core.models.layout import choice_taps, feature_map, param_specs
from transfg_core.models.vit import require_vit
from transfg_core.params.groups import frozen_params, param_groups, trained_params
from transfg_core.params.merge import split_state, strict_merge
from transfg_core.parts import EVALUATION, draw_parts
from transfg_core.schedule import ema_decay_at
from transfg_core.seeds import step_seed
from transfg_torch import runtime
from transfg_torch.checkpointing import save_less
from transfg_torch.explain import best_sum, class_activation
from transfg_torch.loss import compute_losses
from transfg_torch.models import MODELS
from transfg_torch.models.batch_norm import BatchNorm
from transfg_torch.models.output import Output
from transfg_torch.models.taps import Tap, no_tap
from transfg_torch.optim import (
    clip_gradients,
    global_norm,
    make_optimizer,
    optimizer_slots,
    update_averages,
)
from transfg_torch.pixels import Normalise

Handle = dict[str, Tensor]


class TorchBackend:
    """One model on the first CUDA device, or on the CPU."""

    name = "torch"

    def __init__(self, config: Config, model_class: type[nn.Module] | None = None) -> None:
        self.config = config
        self.choices = choice_taps(config.model)
        self.float_type = FLOAT_TYPES[config.run.precision]
        runtime.set_precision(config.run.precision)
        model_class = model_class or MODELS[config.model.name]
        # torch block for 1 line: Jittor has one device, and its parameters take their values' type
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float64 if config.run.precision == "float64" else torch.float32
        self.model = model_class(config.model, config.data.crop).to(self.device, dtype)

        self.normalise = Normalise(config).to(self.device)
        self.model.grad_checkpointing = config.run.grad_checkpointing
        # torch only: Jittor compiles everything, and refuses the setting
        if config.run.compile:
            for block in self.model.blocks:
                block.compile()
        # torch: with running statistics, which are no parameters in PyTorch
        self.params = dict(self.model.state_dict(keep_vars=True))
        assert list(self.params) == list(param_specs(config.model)), "not the table's parameters"
        names = trained_params(config.model, config.optim)
        self.trained = {name: self.params[name] for name in names}
        frozen = frozen_params(config.model, config.optim)
        self.statistics = fix_statistics(self.model, frozen)
        for name, param in self.params.items():
            if name not in self.trained:
                param.requires_grad_(False)
        self.reset_optimizer()

    def reset_optimizer(self) -> None:
        """A new optimiser with zero state, at update 0; averages start at the parameters."""
        self.__dict__.pop("optimizer", None)
        self.updates = 0
        averaged = self.trained if self.config.optim.ema is not None else {}
        self.averages = {name: param.detach().clone() for name, param in averaged.items()}

    @cached_property
    def optimizer(self) -> Any:
        """Made at its first use: a model that only classifies needs none, and starts faster."""
        groups = param_groups(self.config.model, self.config.optim)
        return make_optimizer(self.trained, groups, self.config.optim)

    def slots(self, updates: int | None = None) -> dict[str, dict[str, Tensor]]:
        """State tensors of the trained parameters by section and name; see `optimizer_slots`."""
        slots = optimizer_slots(self.optimizer, self.trained, updates)
        return slots | {"ema": self.averages} if self.averages else slots

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(param.shape) for name, param in self.params.items()}

    def load_params(self, arrays: Mapping[str, Array]) -> None:
        shapes = self.param_shapes()
        self.assign_params(strict_merge(shapes, arrays, "load_params", self.float_type))
        self.reset_optimizer()

    def assign_params(self, arrays: Arrays) -> None:
        """Overwrite the parameters' values; names and shapes are the model's."""
        # torch: parameters take values only without a graph
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(torch.from_numpy(arrays[name].astype(self.float_type)))

    def state(self) -> Arrays:
        arrays = {f"param/{name}": param for name, param in self.params.items()}
        for slot, values in self.slots().items():
            arrays |= {f"{slot}/{name}": value for name, value in values.items()}
        return self.fetch(arrays) | {"optim/updates": np.array(self.updates, np.int64)}

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        shapes = self.param_shapes()
        params, stored, updates = split_state(arrays, shapes, self.slots(), self.trained)
        self.assign_params(params)
        self.reset_optimizer()
        self.updates = updates
        for slot, values in self.slots(updates).items():
            for name, value in values.items():
                array = stored[slot][name].astype(self.float_type)
                value.copy_(torch.from_numpy(array))

    def to_tensor(self, array: Array) -> Tensor:
        """An array on the model's device; floating-point numbers in the parameters' type."""
        floating = array.dtype.kind == "f"
        array = array.astype(self.float_type if floating else array.dtype, copy=False)
        tensor = torch.from_numpy(array)
        # torch only: a copy from pinned memory does not wait for the previous update
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        # torch: Jittor has one device for all arrays
        return tensor.to(self.device, non_blocking=True)

    def to_images(self, images: Array) -> Tensor:
        """Images on the model's device; uint8 ones (B, H, W, 3) are normalised there."""
        tensor = self.to_tensor(images)
        return self.normalise(tensor) if images.dtype == np.uint8 else tensor

    def apply(  # native: its own autocast
        self, images: Tensor, tap: Tap = no_tap, parts: Tensor | None = None
    ) -> Output:
        """The model in the precision that `run.precision` names: (B, 3, H, W) -> Output.

        `parts` (B, S) are for a model that does not choose its own.
        """
        drawn = () if parts is None else (parts,)
        mixed = self.config.run.precision == "bfloat16"
        # gradient checkpointing saves nothing inside blocks, and taps may replace values
        less = tap is no_tap and not self.model.grad_checkpointing
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed), save_less(less):
            return self.model(images, tap, *drawn)

    def draw(self, images: Array, update: int = EVALUATION) -> Tensor | None:
        """The parts (B, S) of these images, if the model does not choose its own."""
        parts = draw_parts(self.config, images, update)
        return None if parts is None else self.to_tensor(parts)

    def choose(self, parts: Array | None) -> Tap:
        """A tap that replaces the selected parts by these (B, K); `no_tap` for None."""
        if parts is None:
            return no_tap
        index = self.to_tensor(parts)
        return lambda name, value: index if name == "part_index" else value

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W), labels (B,) and targets of the losses, on the model's device.

        The targets are `batch.targets` (B, C); without these, the labels.
        """
        labels = self.to_tensor(batch.labels)
        targets = labels if batch.targets is None else self.to_tensor(batch.targets)
        return self.to_images(batch.images), labels, targets

    def train_step(
        self, micro_batches: Sequence[Batch], lr: float, parts: Array | None = None
    ) -> Handle:
        update = self.updates + 1
        # dropout depends on (seed, update) only, so that a resumed run draws the same masks
        torch.manual_seed(step_seed(self.config.run.seed, update))
        self.model.train()
        self.optimizer.zero_grad()
        reports: list[Handle] = []
        given = (
            [None] * len(micro_batches) if parts is None else np.split(parts, len(micro_batches))
        )
        with self.restoring_statistics() as keep:
            for batch, chosen in zip(micro_batches, given, strict=True):
                images, labels, targets = self.to_device(batch)
                drawn = self.draw(batch.images, update)
                output = self.apply(images, self.choose(chosen), drawn)
                losses = compute_losses(output, targets, self.config.loss)
                (losses.total / len(micro_batches)).backward()
                correct = output.answer.argmax(dim=-1) == labels
                reports.append(describe(losses, correct))
            grads = [param.grad for param in self.trained.values()]
            norm = clip_gradients(grads, self.config.optim.clip)
            keep()
        self.updates = update  # an error before this line changes nothing that `state` returns
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.optimizer.step()
        if self.averages:
            decay = ema_decay_at(update, self.config.optim.ema)
            update_averages(self.averages, self.trained, decay)
        means = {key: sum(row[key] for row in reports) / len(reports) for key in reports[0]}
        means["grad_norm"] = norm
        return means

    @contextmanager
    def restoring_statistics(self) -> Iterator[Callable[[], None]]:
        """Restore the running statistics after the `with` block, unless it has called `keep()`."""
        before = {name: self.params[name].detach().clone() for name in self.statistics}
        try:
            yield before.clear
        finally:
            for name, value in before.items():
                self.params[name].copy_(value)

    @contextmanager
    def evaluating(self, gradients: bool = False) -> Iterator[None]:
        """Evaluation mode, with the averages in place of the parameters; then all as before."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        self.swap_averages()
        try:
            with nullcontext() if gradients else torch.no_grad():
                yield
        finally:
            self.swap_averages()
            for module, mode in modes:
                module.training = mode

    def swap_averages(self) -> None:
        """Exchange the values of the trained parameters and their averages, if there are any."""
        for name, average in self.averages.items():
            param = self.trained[name]
            param.data, average.data = average.data, param.data

    def eval_step(self, images: Array) -> Handle:
        with self.evaluating():
            output = self.apply(self.to_images(images), parts=self.draw(images))
        handle = {"logits": output.answer, "features": output.features}
        parts = {"part_index": output.part_index, "part_scores": output.part_scores}
        return handle | {name: value for name, value in parts.items() if value is not None}

    def rollout(self, images: Array) -> Handle:
        require_vit(self.config.model, "attention rollout")
        with self.evaluating():
            return {"rollout": self.model.rollout(self.to_images(images))}

    def saliency(self, images: Array) -> Handle:
        with self.evaluating(gradients=True):
            pixels = self.to_images(images).requires_grad_()
            logits = self.apply(pixels, parts=self.draw(images)).answer
            (slope,) = torch.autograd.grad(best_sum(logits), [pixels])
        return {"saliency": slope.abs().amax(1)}

    def grad_cam(self, images: Array) -> Handle:
        name = feature_map(self.config.model, self.config.data.crop, "Grad-CAM").tap
        kept: Handle = {}

        def keep(tap: str, value: Tensor) -> Tensor:
            if tap == name:
                kept[name] = value
                # torch only: behind frozen parameters alone, a value has no gradient
                value.requires_grad_()
            return kept[name] if tap == name else value

        with self.evaluating(gradients=True):
            logits = self.apply(self.to_images(images), keep, self.draw(images)).answer
            (slope,) = torch.autograd.grad(best_sum(logits), [kept[name]])
        return {"grad_cam": class_activation(kept[name], slope)}

    def fetch(self, handle: Handle) -> Arrays:
        # torch: tensors have graphs and devices
        return {name: to_array(value.detach().cpu()) for name, value in handle.items()}

    def trace(
        self,
        batch: Batch,
        replay: Mapping[str, Array] | None = None,
        fine: bool = False,
        training: bool = False,
    ) -> Arrays:
        # torch only: Jittor has no such setting
        assert not self.config.run.compile, "taps inside compiled blocks have no gradients"
        self.model.train(training)
        replay = replay or {}
        taps: Handle = {}
        sources: Handle = {}  # inputs of the next operation: the tap, or its replayed value
        ends: list[Tensor] = []

        def record(name: str, value: Tensor) -> Tensor:
            taps[name] = sources[name] = value
            # torch only: behind frozen parameters alone, a value has no gradient
            if name not in self.choices:
                value.requires_grad_()
            if name in replay:
                sources[name] = self.to_tensor(replay[name]).to(value.dtype)
                if f"d/{name}" in replay:
                    ends.append((value * self.to_tensor(replay[f"d/{name}"])).sum())
                # torch only: a replayed value starts without a gradient
                if name not in self.choices:
                    sources[name].requires_grad_()
            return sources[name]

        images, _, targets = self.to_device(batch)
        with self.restoring_statistics():
            output = self.apply(images, record, self.draw(batch.images))
            losses = compute_losses(output, targets, self.config.loss)
            taps = {name: value for name, value in taps.items() if fine or "." not in name}
            names = [*self.trained, *(name for name in taps if name not in self.choices)]
            tensors = [(self.trained | sources)[name] for name in names]
            # torch: where the loss does not depend on a tensor, its gradient is zero, not an error
            grads = torch.autograd.grad(sum(ends, losses.total), tensors, materialize_grads=True)
        kinds = ["grad" if name in self.trained else "d" for name in names]
        gradients = {f"{k}/{n}": g for k, n, g in zip(kinds, names, grads, strict=True)}
        param_grads = [gradients[f"grad/{name}"].clone() for name in self.trained]
        norm = clip_gradients(param_grads, self.config.optim.clip)
        taps |= losses.named() | {"grad_norm": norm, "clipped_norm": global_norm(param_grads)}
        return self.fetch(taps | gradients)

    def device_info(self) -> dict[str, Any]:  # native: each framework measures memory differently
        """With the peak memory: on CUDA all that the allocator has reserved, in use or not."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_reserved() if cuda else peak_rss()
        return runtime.device_info() | {"peak_memory_bytes": peak}

    def forget_peak(self) -> None:  # native: Jittor cannot reset its peak
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()


def to_array(value: Tensor) -> Array:  # native: Jittor needs other conversions
    """A copy on the host; bfloat16 becomes float32, because NumPy has no bfloat16."""
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()


def fix_statistics(model: nn.Module, frozen: Collection[str]) -> list[str]:
    """Names of the running statistics that move; the batch norms in `frozen` keep theirs."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm):
            own = [f"{name}.running_mean", f"{name}.running_var"]
            module.fixed = not frozen.isdisjoint(own)
            names += [] if module.fixed else own
    return names


def describe(losses: Any, correct: Tensor) -> Handle:
    """The report of one micro-batch: losses, and the share of images classified correctly."""
    report = {name: loss.detach() for name, loss in losses.named().items()}
    return report | {"accuracy": correct.to(losses.total.dtype).mean()}


def make_backend(config: Config) -> TorchBackend:
    """The entry point that `transfg_core.backend.load_backend` calls."""
    return TorchBackend(config)

"""The Jittor backend: one model, one optimiser update, one evaluation step.

Implements `transfg_core.backend.Backend`. Twin: `transfg_torch/backend.py`.
This file is longer than most, as one class with the methods of that protocol.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import jittor as jt
import numpy as np
from jittor import Var, nn

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
from transfg_jt import runtime
from transfg_jt.checkpointing import save_less
from transfg_jt.explain import best_sum, class_activation
from transfg_jt.loss import compute_losses
from transfg_jt.models import MODELS
from transfg_jt.models.batch_norm import BatchNorm
from transfg_jt.models.output import Output
from transfg_jt.models.taps import Tap, no_tap
from transfg_jt.ops.bfloat16 import autocast, cast_like, to_float32
from transfg_jt.ops.custom_grad import FREE_SAVED, override
from transfg_jt.optim import (
    clip_gradients,
    global_norm,
    make_optimizer,
    optimizer_slots,
    update_averages,
)
from transfg_jt.pixels import Normalise

Handle = dict[str, Var]


class JittorBackend:
    """One model on the first CUDA device, or on the CPU."""

    name = "jittor"

    def __init__(self, config: Config, model_class: type[nn.Module] | None = None) -> None:
        self.config = config
        self.choices = choice_taps(config.model)
        self.float_type = FLOAT_TYPES[config.run.precision]
        runtime.set_precision(config.run.precision)
        model_class = model_class or MODELS[config.model.name]
        runtime.refuse_compile(config.run.compile)  # jittor only: it always compiles
        self.model = model_class(config.model, config.data.crop)

        self.normalise = Normalise(config)
        self.model.grad_checkpointing = config.run.grad_checkpointing
        # jittor: running statistics are among them
        self.params = dict(self.model.named_parameters())
        assert list(self.params) == list(param_specs(config.model)), "not the table's parameters"
        names = trained_params(config.model, config.optim)
        self.trained = {name: self.params[name] for name in names}
        frozen = frozen_params(config.model, config.optim)
        self.statistics = fix_statistics(self.model, frozen)
        for name, param in self.params.items():
            if name not in self.trained:
                param.stop_grad()
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

    def slots(self, updates: int | None = None) -> dict[str, dict[str, Var]]:
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
        # jittor: not under no_grad, which would switch off the parameters' gradients for good
        for name, param in self.params.items():
            param.assign(jt.array(arrays[name].astype(self.float_type)))

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
                # jittor: without stop_grad the state would stay in the graph
                value.assign(jt.array(array).stop_grad())

    def to_tensor(self, array: Array) -> Var:
        """An array on the model's device; floating-point numbers in the parameters' type."""
        floating = array.dtype.kind == "f"
        array = array.astype(self.float_type if floating else array.dtype, copy=False)
        tensor = jt.array(array)
        return tensor

    def to_images(self, images: Array) -> Var:
        """Images on the model's device; uint8 ones (B, H, W, 3) are normalised there."""
        tensor = self.to_tensor(images)
        return self.normalise(tensor) if images.dtype == np.uint8 else tensor

    def apply(  # native: its own autocast
        self, images: Var, tap: Tap = no_tap, parts: Var | None = None
    ) -> Output:
        """The model in the precision that `run.precision` names: (B, 3, H, W) -> Output.

        `parts` (B, S) are for a model that does not choose its own.
        """
        drawn = () if parts is None else (parts,)
        mixed = self.config.run.precision == "bfloat16"
        # gradient checkpointing saves nothing inside blocks, and taps may replace values
        less = tap is no_tap and not self.model.grad_checkpointing
        with autocast(mixed), save_less(less), override(FREE_SAVED, True):
            return self.model(images, tap, *drawn)

    def draw(self, images: Array, update: int = EVALUATION) -> Var | None:
        """The parts (B, S) of these images, if the model does not choose its own."""
        parts = draw_parts(self.config, images, update)
        return None if parts is None else self.to_tensor(parts)

    def choose(self, parts: Array | None) -> Tap:
        """A tap that replaces the selected parts by these (B, K); `no_tap` for None."""
        if parts is None:
            return no_tap
        index = self.to_tensor(parts)
        return lambda name, value: index if name == "part_index" else value

    def to_device(self, batch: Batch) -> tuple[Var, Var, Var]:
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
        jt.set_seed(step_seed(self.config.run.seed, update))
        self.model.train()
        self.optimizer.zero_grad()
        reports: list[Handle] = []
        given = (
            [None] * len(micro_batches) if parts is None else np.split(parts, len(micro_batches))
        )
        with self.restoring_statistics() as keep:
            for batch, chosen in zip(micro_batches, given, strict=True):
                # jittor only: with 100,000 operators pending it would run some amid a backward pass
                if reports:
                    # jittor only: so run the pending ones before each further batch
                    jt.sync([param.opt_grad(self.optimizer) for param in self.trained.values()])
                images, labels, targets = self.to_device(batch)
                drawn = self.draw(batch.images, update)
                output = self.apply(images, self.choose(chosen), drawn)
                losses = compute_losses(output, targets, self.config.loss)
                self.optimizer.backward(losses.total / len(micro_batches))
                correct = output.answer.argmax(dim=-1)[0] == labels
                reports.append(describe(losses, correct))
            grads = [param.opt_grad(self.optimizer) for param in self.trained.values()]
            norm = clip_gradients(grads, self.config.optim.clip)
            # jittor only: an operator's error comes when it runs, and must come before `keep`
            jt.sync([norm, *(self.params[name] for name in self.statistics)])
            keep()
        self.updates = update  # an error before this line changes nothing that `state` returns
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.optimizer.n_step = self.updates  # jittor only: it counts backward passes, not updates
        self.optimizer.step()
        if self.averages:
            decay = ema_decay_at(update, self.config.optim.ema)
            update_averages(self.averages, self.trained, decay)
        means = {key: sum(row[key] for row in reports) / len(reports) for key in reports[0]}
        means["grad_norm"] = norm
        # jittor only: run these operators now: dropout must draw before the next seed is set
        jt.sync([*self.params.values(), *self.averages.values(), *means.values()])
        return means

    @contextmanager
    def restoring_statistics(self) -> Iterator[Callable[[], None]]:
        """Restore the running statistics after the `with` block, unless it has called `keep()`."""
        before = {name: self.params[name].detach().clone() for name in self.statistics}
        jt.sync(list(before.values()))  # jittor only: a value that is computed later would be new
        try:
            yield before.clear
        finally:
            for name, value in before.items():
                self.params[name].assign(value)

    @contextmanager
    def evaluating(self, gradients: bool = False) -> Iterator[None]:
        """Evaluation mode, with the averages in place of the parameters; then all as before."""
        # jittor: its modules call the mode is_train
        modes = [(module, module.is_training()) for module in self.model.modules()]
        self.set_training(False)  # jittor: eval() would also stop all gradients
        self.swap_averages()
        try:
            with nullcontext() if gradients else jt.no_grad():
                yield
        finally:
            self.swap_averages()
            # jittor: its modules call the mode is_train
            for module, mode in modes:
                module.is_train = mode

    def set_training(self, training: bool) -> None:  # native: PyTorch's `train` does it
        """Set the mode of each module, which dropout and batch norm read."""
        self.model.train()
        for module in self.model.modules():
            module.is_train = training

    def swap_averages(self) -> None:
        """Exchange the values of the trained parameters and their averages, if there are any."""
        for name, average in self.averages.items():
            param = self.trained[name]
            param.swap(average)  # jittor: it has no `data` that could be exchanged

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
            # jittor: its arrays start with a gradient
            pixels = self.to_images(images)
            logits = self.apply(pixels, parts=self.draw(images)).answer
            (slope,) = jt.grad(best_sum(logits), [pixels])
        return {"saliency": slope.abs().max(1)}  # jittor: it has no amax

    def grad_cam(self, images: Array) -> Handle:
        name = feature_map(self.config.model, self.config.data.crop, "Grad-CAM").tap
        kept: Handle = {}

        def keep(tap: str, value: Var) -> Var:
            if tap == name:
                # jittor: one Var has one gradient, as in `trace`
                kept[name] = value.clone()
            return kept[name] if tap == name else value

        with self.evaluating(gradients=True):
            logits = self.apply(self.to_images(images), keep, self.draw(images)).answer
            (slope,) = jt.grad(best_sum(logits), [kept[name]])
        return {"grad_cam": class_activation(kept[name], slope)}

    def fetch(self, handle: Handle) -> Arrays:
        # jittor: integers have 32 bits and scalars one axis
        return {name: widen(to_float32(value).numpy()) for name, value in handle.items()}

    def trace(
        self,
        batch: Batch,
        replay: Mapping[str, Array] | None = None,
        fine: bool = False,
        training: bool = False,
    ) -> Arrays:
        self.set_training(training)  # jittor: eval() would also stop all gradients
        replay = replay or {}
        taps: Handle = {}
        sources: Handle = {}  # inputs of the next operation: the tap, or its replayed value
        ends: list[Var] = []

        def record(name: str, value: Var) -> Var:
            # jittor: one Var has one gradient, and dropout may return its input Var itself
            taps[name], sources[name] = value, value.clone()
            if name in replay:
                # jittor: the next layer computes in the type of its input
                sources[name] = cast_like(self.to_tensor(replay[name]), value)
                if f"d/{name}" in replay:
                    ends.append((value * self.to_tensor(replay[f"d/{name}"])).sum())
            return sources[name]

        images, _, targets = self.to_device(batch)
        with self.restoring_statistics():
            output = self.apply(images, record, self.draw(batch.images))
            losses = compute_losses(output, targets, self.config.loss)
            taps = {name: value for name, value in taps.items() if fine or "." not in name}
            names = [*self.trained, *(name for name in taps if name not in self.choices)]
            tensors = [(self.trained | sources)[name] for name in names]
            grads = jt.grad(sum(ends, losses.total), tensors, retain_graph=False)
        kinds = ["grad" if name in self.trained else "d" for name in names]
        gradients = {f"{k}/{n}": g for k, n, g in zip(kinds, names, grads, strict=True)}
        param_grads = [gradients[f"grad/{name}"].clone() for name in self.trained]
        norm = clip_gradients(param_grads, self.config.optim.clip)
        taps |= losses.named() | {"grad_norm": norm, "clipped_norm": global_norm(param_grads)}
        return self.fetch(taps | gradients)

    def device_info(self) -> dict[str, Any]:  # native: each framework measures memory differently
        """With the peak memory: on CUDA all that the allocator has reserved, in use or not."""
        # the memory reserved now: Jittor returns none of it while more is available
        peak = jt.get_mem_info().total_cuda_used if jt.flags.use_cuda else peak_rss()
        return runtime.device_info() | {"peak_memory_bytes": peak}

    def forget_peak(self) -> None:  # native: Jittor cannot reset its peak
        pass


def widen(value: Array) -> Array:  # native: torch has 64-bit indices and true scalars
    """int32 becomes int64, and the shape (1,), which Jittor gives to scalars, becomes ()."""
    value = value.reshape(()) if value.shape == (1,) else value
    return value.astype(np.int64) if value.dtype == np.int32 else value


def fix_statistics(model: nn.Module, frozen: Collection[str]) -> list[str]:
    """Names of the running statistics that move; the batch norms in `frozen` keep theirs."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm):
            own = [f"{name}.running_mean", f"{name}.running_var"]
            module.fixed = not frozen.isdisjoint(own)
            names += [] if module.fixed else own
    return names


def describe(losses: Any, correct: Var) -> Handle:
    """The report of one micro-batch: losses, and the share of images classified correctly."""
    report = {name: loss.detach() for name, loss in losses.named().items()}
    # jittor: its mean has float32 constants
    return report | {"accuracy": correct.cast(losses.total.dtype).sum() / correct.shape[0]}


def make_backend(config: Config) -> JittorBackend:
    """The entry point that `transfg_core.backend.load_backend` calls."""
    return JittorBackend(config)

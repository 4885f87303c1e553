"""A backend ready to record: its weights, batches and manifest, and its updates."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from parity.cases.case import Case, params_of
from parity.cases.variants import Variant
from parity.comparison.trace import Trace, digest, environment, read_trace
from parity.suite.checks.bits import crc
from parity.suite.jobs import Job
from transfg_core.backend import Array, Arrays, Backend, Batch, load_backend
from transfg_core.errors import UserError
from transfg_core.params.groups import frozen_params
from transfg_core.schedule import lr_at
from transfg_core.train import split_batch


class Recorder:
    """A backend at the start of a job, with its inputs and its variant."""

    def __init__(self, job: Job) -> None:
        self.job, self.case = job, job.subject()
        self.config = self.case.config(job.precision)
        self.base = self.params()
        self.variant = Variant(job.variant, self.config) if job.variant else None
        batches = self.case.batches()
        self.manifest = self.describe(batches)
        params = self.base
        if self.variant:
            params = {k: v.astype(self.float_type) for k, v in params.items()}
            params = self.variant.params(params)
            batches = [self.variant.batch(batch) for batch in batches]
        self.batches = batches
        self.backend: Backend = load_backend(job.backend, self.config)
        self.backend.load_params(params)
        info = self.backend.device_info()
        info.pop("peak_memory_bytes")
        self.manifest["producer"] = {"name": info.pop("backend")} | info | environment()
        self.chosen: Arrays = {}

    @property
    def float_type(self) -> Any:
        """NumPy's type of the parameters."""
        return np.float64 if self.job.precision == "float64" else np.float32

    @property
    def fine(self) -> bool:
        """Whether taps inside blocks are recorded."""
        return self.job.fine or self.case.fine

    def params(self) -> Arrays:
        """The weights that the case starts from, before any variant."""
        if self.job.weights:
            try:
                return dict(load_file(self.job.weights))
            except (OSError, SafetensorError) as error:
                raise UserError(f"--weights {self.job.weights}: cannot read: {error}") from error
        if not isinstance(self.case, Case):
            raise UserError(
                f"--case {self.job.case}: needs --weights, the published program's checkpoint as "
                "`transfg convert` writes it"
            )
        return self.case.params()

    def trace(self, replay: Arrays) -> Arrays:
        """One pass over the first batch, with the given taps."""
        training = getattr(self.case, "training", False)
        return self.backend.trace(self.batches[0], replay, fine=self.fine, training=training)

    def describe(self, batches: list[Batch]) -> dict[str, Any]:
        """The manifest without the producer."""
        settings = self.config.model_dump(mode="json")
        settings["run"].pop("precision")
        inputs = {
            f"{name}{i}": value
            for i, batch in enumerate(batches)
            for name, value in batch._asdict().items()
            if value is not None
        }
        return {
            "case": self.job.case,
            "seed": self.job.seed,
            "draw": self.job.draw if self.job.seed is not None else None,
            "kind": self.job.kind,
            "precision": self.job.precision,
            "variant": self.job.variant,
            "subject": {
                "weights": digest(self.base),
                "inputs": digest(inputs),
                "settings": settings,
            },
        }

    def given(self, taps: Arrays) -> Arrays:
        """Recorded taps, with axes in the order of this variant."""
        return self.variant.given(taps) if self.variant else taps

    def back(self, taps: Arrays) -> Arrays:
        """Computed taps, with axes back in the case's own order."""
        return self.variant.back(taps) if self.variant else taps

    def own(self, state: Arrays, prefix: str = "") -> Arrays:
        """State to compare bit by bit; a variant has none, since its bits differ."""
        return {} if self.variant else {k: v for k, v in state.items() if k.startswith(prefix)}

    def check_source(self, source: Trace, needed: Callable[[str], bool]) -> None:
        """Refuse a source of another computation, or one that stores needed taps as sketches.

        `needed` says of a tap (`stage/tap`) whether this job computes with it.

        Raises:
            UserError: weights or inputs differ, or a needed tap was not stored whole.
        """
        for key in ("weights", "inputs"):
            if source.manifest["subject"].get(key) != self.manifest["subject"][key]:
                raise UserError(
                    f"{source.path}: its {key} are not those of case {self.job.case} here; record "
                    "it with the same case, seed and weights"
                )
        for name, tap in source.taps.items():
            if needed(name) and not isinstance(tap, np.ndarray):
                raise UserError(
                    f"{source.path}: {name} is stored as a sketch; record it without --sketch-above"
                )

    @cached_property
    def forced_by(self) -> Trace:
        """The trace whose parts are used; it must have the same weights and inputs."""
        assert self.job.force
        source = read_trace(self.job.force)
        self.check_source(source, lambda name: name == "selection/part_index")
        return source

    def forced(self) -> Arrays:
        """The part indices that a pass must use; empty if it chooses its own."""
        if not self.job.force:
            return {}
        taps = self.forced_by.arrays("selection")
        return self.given({n: v for n, v in taps.items() if n == "part_index"})

    def parts(self, update: int) -> Array | None:
        """The parts of an update's images: from the trace `force`, else this backend's own choice.

        If two backends chose differently within the noise, all later numbers would differ. So this
        backend's choice is stored in `chosen`, for others to use.

        Raises:
            UserError: the trace `force` lacks the parts of this update.
        """
        if not self.config.model.selects_parts:
            return None
        name = f"{update:02d}"
        if not self.job.force:
            images = self.batches[update - 1].images
            index = self.backend.fetch(self.backend.eval_step(images))["part_index"]
            self.chosen[name] = self.back({"part_index": index})["part_index"]
            return index
        taps = self.forced_by.arrays("state parts")
        if name not in taps:
            raise UserError(
                f"{self.job.force}: it does not hold the parts of update {update}; record it "
                "again, without --force"
            )
        return self.given({"part_index": taps[name]})["part_index"]

    def run_updates(self, first: int, last: int) -> Arrays:
        """Run updates first..last; return their reports as arrays over updates."""
        config, reports = self.config, []
        for update in range(first, last + 1):
            lr = lr_at(update, config.optim, config.train.steps)
            micro = split_batch(self.batches[update - 1], config.train.accumulation)
            handle = self.backend.train_step(micro, lr, self.parts(update))
            reports.append(self.backend.fetch(handle))
        return {name: np.stack([report[name] for report in reports]) for name in reports[0]}

    def state_since(self, before: Arrays) -> Arrays:
        """Optimiser state, and steps of parameters, statistics and averages since `before`.

        Steps are in float64.

        Steps are compared, not parameters: an update of 0.001 on a weight of 1 would lose three
        digits in the comparison. Of frozen parameters the bits must stay: see `frozen_bits`.
        """
        state = self.backend.state()
        frozen = frozen_params(self.config.model, self.config.optim)
        moving = {f"param/{name}" for name in params_of(state) if name not in frozen}
        steps: Arrays = {}
        for name, value in state.items():
            if name in moving or name.startswith("ema/"):
                tap = name.replace("param/", "step/")
                steps[tap] = value.astype(np.float64) - before[name]
        sections = ("param/", "ema/")
        slots = {name: value for name, value in state.items() if not name.startswith(sections)}
        return steps | slots

    def frozen_bits(self) -> Arrays:
        """A CRC-32 for each frozen parameter, as `frozen`; none in a variant, with other bits."""
        params = params_of(self.backend.state())
        names = frozen_params(self.config.model, self.config.optim)
        frozen = [{name: value} for name, value in params.items() if name in names]
        if self.variant or not frozen:
            return {}
        return {"frozen": np.array([crc(param) for param in frozen])}

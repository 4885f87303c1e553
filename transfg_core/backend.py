"""The border between the core and the twins: steps in, NumPy arrays out.

This is the only module that knows the twins' names. A third framework joins by a package that
offers a class with these methods and a line in `BACKENDS`.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import Config
from transfg_core.errors import UserError

BACKENDS: dict[str, str] = {"torch": "transfg_torch", "jittor": "transfg_jt"}

Array = NDArray[Any]
Arrays = dict[str, Array]

# run.precision -> the type of parameters, and of every floating-point array that crosses
FLOAT_TYPES = {
    "float32": np.dtype(np.float32),
    "tf32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


class Batch(NamedTuple):
    """Images (B, 3, H, W) float32, normalised; labels (B,) int64 in [0, C)."""

    images: Array
    labels: Array


class Backend(Protocol):
    """One model with its optimiser on one device. Only NumPy arrays and plain Python cross.

    Parameters carry canonical names (`transfg_core.models`). A *handle* is the backend's own: it
    may stand for work that has not run yet, and `fetch` is the only call that waits for it.
    """

    name: str

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name -> shape of every parameter."""
        ...

    def load_params(self, arrays: Mapping[str, Array]) -> None:
        """Replace all parameters; the optimiser starts anew.

        Raises:
            UserError: a name is missing or unknown, or a shape differs.
        """
        ...

    def state(self) -> Arrays:
        """Parameters `param/<name>`, optimiser state `<slot>/<name>` and `optim/updates`.

        Slots are `momentum` for SGD, `exp_avg` and `exp_avg_sq` for Adam and AdamW.
        """
        ...

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        """Continue from `state()` of either twin.

        Raises:
            UserError: names or shapes differ from this model and optimiser.
        """
        ...

    def train_step(
        self, micro_batches: Sequence[Batch], lr: float, parts: Array | None = None
    ) -> Any:
        """One update from equally large micro-batches; does not wait for the device.

        `parts` (B, K), of all micro-batches, counted from 1, takes the place of what part
        selection chooses, so that two backends can be compared after the same choice.

        Fetches to `loss`, `cross_entropy`, `contrastive`, `accuracy` (means over the
        micro-batches) and `grad_norm` (before clipping), each a float32 scalar.
        """
        ...

    def eval_step(self, images: Array) -> Any:
        """Fetches to `logits` (B, C) and, with part selection, `part_index` (B, K) from 1."""
        ...

    def fetch(self, handle: Any) -> Arrays:
        """Wait for a handle and bring its values to the host."""
        ...

    def rollout(self, images: Array) -> Any:
        """Fetches to `rollout` (B, N): how much of each patch reaches the class token.

        Raises:
            UserError: the model has no attention.
        """
        ...

    def trace(
        self,
        batch: Batch,
        replay: Mapping[str, Array] | None = None,
        fine: bool = False,
        training: bool = False,
    ) -> Arrays:
        """Every tap of one forward and backward pass; nothing is updated.

        Activations by tap name and the loss's gradients `d/<tap>` with respect to them; `loss`,
        `cross_entropy`, `contrastive`, `grad_norm`, `clipped_norm` (after clipping), and
        `grad/<name>` for each parameter. `fine` adds the taps inside blocks; `training` switches
        dropout on.

        `replay` cuts the pass at the taps that it names: each is recorded as computed and goes on
        as given, so that every piece between two taps starts from the same numbers as another
        backend's. With `d/<tap>` beside it, the gradients of the piece before start from there.
        """
        ...

    def device_info(self) -> dict[str, Any]:
        """Versions, device, threads and `peak_memory_bytes`: of the process where it is the CPU."""
        ...

    def forget_peak(self) -> None:
        """Let the peak of the device's memory start anew; the process has its own."""
        ...


def load_backend(name: str, config: Config) -> Backend:
    """Import a twin and build its model; `config.model.classes` must be set.

    Raises:
        UserError: the name is unknown, or its framework is missing or cannot start.
    """
    if name not in BACKENDS:
        raise UserError(f"--backend {name}: expected one of {', '.join(BACKENDS)}")
    start_framework(name)
    module = importlib.import_module(f"{BACKENDS[name]}.backend")
    backend: Backend = module.make_backend(config)
    return backend


def start_framework(name: str) -> None:
    """Import a twin's framework.

    Raises:
        UserError: it is missing or cannot start.
    """
    # Threads that wait must sleep, not spin: reading images ahead takes the same cores. Costs some
    # per cent on an idle machine and saves several times the run on a busy one. Read when OpenMP
    # is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    importlib.import_module(f"{BACKENDS[name]}.runtime").prepare()


def load_workloads(name: str) -> Any:
    """A backend's workloads for `transfg bench`; starts its framework.

    Raises:
        UserError: the framework is missing or cannot start.
    """
    start_framework(name)
    return importlib.import_module(f"{BACKENDS[name]}.baseline.workloads")


def load_authors_reader() -> Any:
    """The reader of the authors' checkpoints, which are torch pickles and so need PyTorch.

    Raises:
        UserError: PyTorch is missing.
    """
    importlib.import_module(f"{BACKENDS['torch']}.runtime").prepare()
    return importlib.import_module(f"{BACKENDS['torch']}.foreign.authors")

"""The interface between the core and the twins, which exchange only NumPy arrays and plain Python.

Only this module knows the names of the twins. To add a third framework, write a package with a
class that has the methods of `Backend`, and add a line to `BACKENDS`.
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

# run.precision -> the type of parameters and of every floating-point array that a twin returns
FLOAT_TYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "tf32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


class Batch(NamedTuple):
    """Images and labels (B,) int64 in [0, C).

    Images are uint8 (B, H, W, 3), which a backend normalises on its device, or normalised float32
    (B, 3, H, W). Both give the same bits (`transfg_core.data.transforms.normalise`).

    `targets` (B, C) float32 are the shares of the classes in each image, which sum to 1; None means
    that each image is of one class. The losses compare with the targets, the reported accuracy with
    the labels; the label of a mixed image is the class with the larger share.
    """

    images: Array
    labels: Array
    targets: Array | None = None


class Backend(Protocol):
    """One model with its optimiser on one device.

    All methods take and return NumPy arrays and plain Python, except for handles. A *handle* is an
    object of the backend whose work may not have run yet; only `fetch` waits for it. Parameters
    have canonical names (`transfg_core.models`).
    """

    name: str
    model: Any  # the framework's own module: normalised images (B, 3, H, W) -> Output

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Dict: canonical name -> shape of every parameter."""
        ...

    def load_params(self, arrays: Mapping[str, Array]) -> None:
        """Replace all parameters and reset the optimiser; averages start at these parameters.

        Raises:
            UserError: a name is missing or unknown, or a shape differs.
        """
        ...

    def state(self) -> Arrays:
        """Parameters `param/<name>`, optimiser state `<slot>/<name>` and `optim/updates`.

        SGD has the slot `momentum`; Adam and AdamW have `exp_avg` and `exp_avg_sq`. With
        `optim.ema` there are also averaged parameters `ema/<name>`. Frozen parameters have only
        `param/<name>`.
        """
        ...

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        """Restore a `state()` of either twin.

        Raises:
            UserError: names or shapes differ from this model and optimiser.
        """
        ...

    def train_step(
        self, micro_batches: Sequence[Batch], lr: float, parts: Array | None = None
    ) -> Any:
        """Make one update from micro-batches of equal size, without waiting for the device.

        Frozen parameters (`optim.frozen`) get no gradient, and stay as they are. With `optim.ema`,
        the averages of the others follow.

        `parts` (B, K) holds part indices, counted from 1, for all micro-batches. They replace the
        choice of part selection, so that two backends can be compared after the same choice.

        The handle fetches to `loss`, `cross_entropy`, `contrastive`, `accuracy` (means over the
        micro-batches) and `grad_norm` (of the trained parameters, before clipping), each a float32
        scalar.
        """
        ...

    def eval_step(self, images: Array) -> Any:
        """Classify images, uint8 or normalised as in `Batch`, with the averaged parameters if any.

        The handle fetches to `logits` (B, C), `features` (B, D), which the head receives, and, with
        part selection, `part_index` (B, K) from 1, and `part_scores` (B, J, N), unless the parts
        are drawn.
        """
        ...

    def fetch(self, handle: Any) -> Arrays:
        """Wait for a handle and copy its values to the host."""
        ...

    def rollout(self, images: Array) -> Any:
        """Compute how much of each patch reaches the class token, as `eval_step` classifies.

        The handle fetches to `rollout` (B, N).

        Raises:
            UserError: the model has no attention.
        """
        ...

    def saliency(self, images: Array) -> Any:
        """Compute how much the score of the chosen class depends on each pixel.

        The handle fetches to `saliency` (B, H, W): the largest absolute value over colours of the
        gradient of the largest logit, as `eval_step` classifies, with respect to the normalised
        image (Simonyan et al. 2013, arXiv 1312.6034, section 3). It works for every model.
        """
        ...

    def grad_cam(self, images: Array) -> Any:
        """Compute which places of the last feature map raise the score of the chosen class.

        The handle fetches to `grad_cam` (B, N), row by row over the map of
        `transfg_core.models.layout.feature_map`, not negative. The class is that of the largest
        logit, as `eval_step` classifies. Source: Grad-CAM, Selvaraju et al. 2017 (arXiv
        1610.02391), equations 1 and 2.

        Raises:
            UserError: the model has no such map.
        """
        ...

    def trace(
        self,
        batch: Batch,
        replay: Mapping[str, Array] | None = None,
        fine: bool = False,
        training: bool = False,
    ) -> Arrays:
        """Record every tap of one forward and backward pass, without an update.

        Returns the activation of each tap by its name and the gradient `d/<tap>` of the loss with
        respect to it; `loss`, `cross_entropy`, `contrastive`, `grad_norm`, `clipped_norm` (after
        clipping); and `grad/<name>` for each trained parameter. `fine` adds the taps inside blocks;
        `training` switches dropout on.

        `replay` isolates operations. A tap that it names is recorded as computed; the operations
        after it read the given value, so they have the same inputs as in another backend. If
        `replay` also names `d/<tap>`, the gradients of the operations before it start from there.
        """
        ...

    def device_info(self) -> dict[str, Any]:
        """Versions, device, threads and `peak_memory_bytes` (on the CPU, of the process)."""
        ...

    def forget_peak(self) -> None:
        """Reset the device's peak memory; `machine.forget_peak_rss` resets that of the process."""
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
    # Waiting threads must sleep, not spin: the threads that read images need the same cores.
    # OpenMP reads this variable when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    importlib.import_module(f"{BACKENDS[name]}.runtime").prepare()


def load_torchvision_input() -> Any:
    """Start PyTorch and return torchvision's way to read images, for `transfg bench`.

    Raises:
        UserError: PyTorch is missing or cannot start.
    """
    start_framework("torch")
    return importlib.import_module(f"{BACKENDS['torch']}.peers.torchvision_input")


def load_peer(program: str, config: Config) -> Backend:
    """Start PyTorch and build the same model as a peer has it, for `transfg bench`.

    Raises:
        UserError: PyTorch or the peer is missing, or the peer has no such model.
    """
    start_framework("torch")
    module = importlib.import_module(f"{BACKENDS['torch']}.peers.models")
    backend: Backend = module.peer_backend(program, config)
    return backend


def load_onnx_export() -> Any:
    """Start PyTorch and return its export to ONNX, for `transfg export --onnx`.

    Raises:
        UserError: PyTorch is missing or cannot start.
    """
    start_framework("torch")
    return importlib.import_module(f"{BACKENDS['torch']}.onnx.writing")


def load_workloads(name: str) -> Any:
    """Start a framework and return its workloads for `transfg bench`.

    Raises:
        UserError: the framework is missing or cannot start.
    """
    start_framework(name)
    return importlib.import_module(f"{BACKENDS[name]}.baseline.workloads")

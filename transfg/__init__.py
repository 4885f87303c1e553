"""TransFG in PyTorch and in Jittor: the command line, and the names that library users need.

    from transfg import load                            # a trained model, ready to classify
    from transfg import Batch, build_params, load_backend, load_config

A name is imported at its first use, so that `transfg doctor` also runs if a package is broken.
"""

import importlib
from typing import TYPE_CHECKING, Any

from transfg_core import __version__

if TYPE_CHECKING:
    from transfg_core.backend import Backend, Batch, load_backend
    from transfg_core.checkpoints.pretrained import build_params
    from transfg_core.config.loading import load_config
    from transfg_core.config.sections import Config
    from transfg_core.errors import RunFailed, UserError
    from transfg_core.inference.predictor import Prediction, Predictor, load

HOMES = {
    "Backend": "transfg_core.backend",
    "Batch": "transfg_core.backend",
    "Config": "transfg_core.config.sections",
    "Prediction": "transfg_core.inference.predictor",
    "Predictor": "transfg_core.inference.predictor",
    "RunFailed": "transfg_core.errors",
    "UserError": "transfg_core.errors",
    "build_params": "transfg_core.checkpoints.pretrained",
    "load": "transfg_core.inference.predictor",
    "load_backend": "transfg_core.backend",
    "load_config": "transfg_core.config.loading",
}
__all__ = [
    "Backend",
    "Batch",
    "Config",
    "Prediction",
    "Predictor",
    "RunFailed",
    "UserError",
    "__version__",
    "build_params",
    "load",
    "load_backend",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)

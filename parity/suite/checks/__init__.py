"""The checks: loading, learning rates, data, predictions, dropout, and the backends' contract.

    python -m parity.suite.record      # with a job of kind and case `checks`

Much of this is the shared core: a fault there is in both backends, so no pair of traces shows it.
So the trace also holds *claims*: booleans that must be true in both. The code under test does not
compute what a claim compares with: that is defined here again, or comes from the published
program's golden files. Equal bits are checked by a CRC-32, stored as an integer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from parity.suite.checks import checkpoints, contract, dropout, rates, samples
from parity.suite.checks.case import CHECKS
from transfg_core.backend import Arrays, Backend, Batch
from transfg_core.checkpoints import file as checkpoint
from transfg_core.config.sections import Config
from transfg_core.data.toy.writing import write_toy

__all__ = ["CHECKS", "record_checks", "tagged"]


def record_checks(
    backend: Backend, config: Config, batches: Sequence[Batch], published: str | None, run: str
) -> Arrays:
    """All taps of the checks of a backend, which must hold the start weights of CHECKS.

    Args:
        published: the authors' checkpoint of the first golden case as .safetensors; with None its
            taps are left out.
        run: checkpoint of a run to load. If the file is missing, this backend saves one there.

    Raises:
        UserError: a checkpoint cannot be read.
    """
    taps = tagged("contract", contract.contract(backend, config, batches))
    if not Path(run).exists():
        metadata = {"backend": backend.name, "config": config.model_dump(mode="json")}
        checkpoint.save(Path(run), backend.state(), metadata)
    taps |= tagged("loading", checkpoints.loading(backend, config, published, run))
    grouped = rates.group_rates(backend.name, config, batches[0])
    taps |= tagged("learning rates", rates.schedules() | grouped)
    with TemporaryDirectory() as folder:
        root = Path(folder) / "toy"
        write_toy(root, samples.TOY_SIZE, lambda text: None)
        taps |= tagged("data", samples.data(config, str(root)))
        taps |= tagged("predictions", samples.predictions(backend, config, str(root)))
    return taps | tagged("dropout", dropout.dropout(backend.name, config, batches))


def tagged(stage: str, taps: Mapping[str, Any]) -> Arrays:
    """Values as arrays under `stage/name`; numbers and booleans become arrays as well."""
    return {f"{stage}/{name}": np.asarray(value) for name, value in taps.items()}

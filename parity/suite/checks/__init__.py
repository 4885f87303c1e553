"""Around the model: loading, learning rates, data, predictions, dropout, and the border's contract.

    python -m parity.suite.record      # with a job of kind and case `pipeline`

Much of this is the shared core, where a fault is in both backends and no pair of traces can show
it. So beside what was computed, the trace holds *claims*: booleans that must be true in both. What
a claim compares with is restated here or comes from the published program's golden files, and is
not computed by the code in question. Equality of bits is asked for by CRC-32 as an integer.
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
    """Every tap of a backend, which stands at the start weights of CHECKS.

    Args:
        published: the authors' checkpoint of the first golden case as .safetensors; None leaves
            its taps out.
        run: checkpoint of a run to load; where there is none yet, this backend's is saved there.

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
    """Arrays under `stage/name`, numbers and truth values among them."""
    return {f"{stage}/{name}": np.asarray(value) for name, value in taps.items()}

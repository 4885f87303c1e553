"""Learning rates: schedules against their formulas; each parameter's rate and weight decay.

Letters: P parameters, U updates.
"""

import zlib
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from parity.cases.case import params_of
from parity.comparison.sketch import Array
from parity.suite.checks.case import CHECKS, changed, with_gradient
from transfg_core.backend import Batch, load_backend
from transfg_core.config.sections import Config, OptimConfig
from transfg_core.schedule import lr_at

SCHEDULES = tuple((name, warmup) for name in ("cosine", "linear", "constant") for warmup in (0, 4))
STEPS = 16
BASE_RATE = 0.03

GROUPED: dict[str, Any] = {
    "lr": 0.5,
    "weight_decay": 0.2,
    "layer_decay": 0.8,
    "groups": [
        {"match": "head.*", "lr_scale": 5.0, "weight_decay": 0.0},
        {"match": "*.bias", "lr_scale": 0.5},  # head.bias belongs to the group before
        {"match": "pos_embed", "lr_scale": 0.0},
        {"match": "cls_token", "weight_decay": 0.4},
    ],
}
# the expected result: the first pattern that fits, its rate in units of lr, its weight decay
RATES = (
    ("head.*", 5.0, 0.0),
    ("*.bias", 0.5, 0.2),
    ("pos_embed", 0.0, 0.2),
    ("cls_token", 1.0, 0.4),
    ("*", 1.0, 0.2),
)
# and the layers between a parameter and the head: the model has three blocks and the part layer
LAYERS_BELOW = (
    ("blocks.0.*", 4),
    ("blocks.1.*", 3),
    ("blocks.2.*", 2),
    ("part_layer.*", 1),
    ("part_norm.*", 0),
    ("head.*", 0),
    ("*", 5),
)


def schedules() -> dict[str, Any]:
    """The rates of all updates, (U,) float64 for each schedule; whether they follow the formula."""
    taps: dict[str, Any] = {}
    for schedule, warmup in SCHEDULES:
        optim = OptimConfig.model_validate(
            {"lr": BASE_RATE, "schedule": schedule, "warmup": warmup}
        )
        rates = np.array([lr_at(update, optim, STEPS) for update in range(1, STEPS + 1)])
        name = f"{schedule}, warm-up {warmup}"
        taps[name] = rates
        taps[f"{name}/crc"] = zlib.crc32(rates.tobytes())
        taps[f"{name}/as defined"] = np.allclose(rates, defined_rates(schedule, warmup), 1e-14)
    return taps


def defined_rates(schedule: str, warmup: int) -> Array:
    """Rates of updates 1..STEPS (U,): linear warm-up to update `warmup`, then decay to STEPS."""
    update = np.arange(1, STEPS + 1)
    progress = np.clip((update - warmup) / (STEPS - warmup), 0, 1)
    falls = {
        "cosine": np.cos(np.pi / 2 * progress) ** 2,  # (1 + cos πx) / 2
        "linear": 1 - progress,
        "constant": np.ones(STEPS),
    }
    return np.asarray(BASE_RATE * falls[schedule] * np.minimum(1, update / max(warmup, 1)))


def group_rates(name: str, config: Config, batch: Batch) -> dict[str, Any]:
    """Each parameter's rate, and rate times weight decay, in an update; in hundredths (P,).

    They are measured from the step, which is -lr · rate · (direction + decay · parameter).
    """
    taps: dict[str, Any] = {}
    for optimiser in ("sgd", "adamw"):
        new = changed(config, optim=GROUPED | {"name": optimiser})
        backend = load_backend(name, new)
        backend.load_params(CHECKS.params())
        before = params_of(backend.state())
        passed = backend.trace(batch)
        clipped = passed["clipped_norm"] / passed["grad_norm"]
        backend.fetch(backend.train_step([batch], new.optim.lr))
        names = with_gradient(before, config.model)
        measured = []
        for param, after in params_of(backend.state()).items():
            if param in names:
                gradient = passed[f"grad/{param}"].astype(np.float64) * clipped
                signs = gradient / (np.abs(gradient) + new.optim.eps)  # Adam's first direction
                direction = signs if optimiser == "adamw" else gradient
                step = (after.astype(np.float64) - before[param]) / -new.optim.lr
                measured.append(measured_rate(step, direction, before[param]))
        rates = np.rint(100 * np.array(measured)).astype(np.int64)
        expected = np.rint(100 * np.array([expected_rate(param) for param in names]))
        taps |= {f"{optimiser} groups/rate": rates[:, 0], f"{optimiser} groups/decay": rates[:, 1]}
        taps[f"{optimiser} groups/as configured"] = np.array_equal(rates, expected)
    return taps


def measured_rate(step: Array, direction: Array, param: Array) -> tuple[float, float]:
    """Least squares of step = a · direction + b · parameter: (a, b)."""
    columns = np.stack([direction.ravel(), param.astype(np.float64).ravel()], axis=1)
    a, b = np.linalg.lstsq(columns, step.ravel(), rcond=None)[0]
    return float(a), float(b)


def expected_rate(name: str) -> tuple[float, float]:
    """Rate of a parameter, and rate times weight decay, according to RATES and LAYERS_BELOW."""
    _, rate, decay = next(row for row in RATES if fnmatchcase(name, row[0]))
    below = next(count for pattern, count in LAYERS_BELOW if fnmatchcase(name, pattern))
    rate *= GROUPED["layer_decay"] ** below
    return rate, rate * decay

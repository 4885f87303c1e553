"""Learning rate and decay of the average at every update, as pure functions.

Source: the published TransFG program, which advances its schedule *before* the optimiser. So update
k, counted from 1, uses multiplier lambda(k). The first update already changes the weights. The last
one, k = T, has rate exactly 0 with `cosine` and `linear`.
"""

import math
from collections.abc import Callable

from transfg_core.config.sections import OptimConfig

CYCLES = 0.5  # half a cosine wave: from 1 down to 0


def _cosine(progress: float) -> float:
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * CYCLES * 2.0 * progress)))


def _linear(progress: float) -> float:
    return max(0.0, 1.0 - progress)


def _constant(progress: float) -> float:
    return 1.0


DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}


def lr_at(update: int, optim: OptimConfig, steps: int) -> float:
    """Learning rate of one update in float64.

    lambda(k) = k / w for k < w, then decay((k - w) / (T - w)), where w is `optim.warmup` and T is
    `steps`. With base 0.03, w = 500 and T = 10000: update 1 uses 6e-5, 500 uses 0.03, 10000 uses 0.

    Args:
        update: k, counted from 1.
        steps: T, the length of the whole run in updates.
    """
    assert 1 <= update <= steps, f"update {update} outside 1..{steps}"
    if update < optim.warmup:
        return optim.lr * (update / optim.warmup)
    progress = (update - optim.warmup) / max(1, steps - optim.warmup)
    return optim.lr * DECAYS[optim.schedule](progress)


def ema_decay_at(update: int, decay: float) -> float:
    """Decay of the averaged parameters after update k: min(decay, (1 + k) / (10 + k)).

    Source: `tf.train.ExponentialMovingAverage` with `num_updates`. The smaller decay of the first
    updates lets the average leave its starting values in short runs, too.

    Args:
        update: k, counted from 1.
        decay: `optim.ema`, the decay of a long run.
    """
    assert update >= 1, f"update {update} is not counted from 1"
    return min(decay, (1 + update) / (10 + update))

"""The seed of an update's dropout."""

import numpy as np


def step_seed(seed: int, update: int) -> int:
    """Seed of one update's dropout, 31 bits, from the run's seed and the update's number.

    The two are hashed, because neighbouring seeds may give shifted copies of one random stream
    (Jittor on the CPU).
    """
    return int(np.random.SeedSequence([seed, update]).generate_state(1)[0]) % (2**31 - 2) + 1

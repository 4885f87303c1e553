"""Dropout: masks at every site, and when they change.

Only the masks may differ between frameworks. Claims about them are statistical tests at the level
CHANCE, so that a right mask practically never fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from parity.comparison.measure import ROUNDOFF
from parity.comparison.sketch import Array
from parity.suite.checks.case import CHECKS, changed
from transfg_core.backend import Backend, Batch, load_backend
from transfg_core.config.sections import Config
from transfg_core.models.layout import taps_of
from transfg_core.models.rows import TapSpec

CHANCE = 1e-9  # probability that a right mask fails a test
DROPOUT = 0.3
SAME_LOSS = 1e-4  # relative; more than rounding, less than the change by this dropout


def dropout(name: str, config: Config, batches: Sequence[Batch]) -> dict[str, Any]:
    """Masks at every site, and when they change."""
    backend = load_backend(name, changed(config, model={"dropout": DROPOUT}))
    backend.load_params(CHECKS.params())
    evaluated = backend.trace(batches[0], fine=True)
    trained = backend.trace(batches[0], evaluated, fine=True, training=True)
    roundoff = ROUNDOFF[config.run.precision]
    recorded = sites(evaluated, taps_of(config.model))
    taps = mask_taps(evaluated, trained, recorded, DROPOUT, roundoff)
    return taps | update_claims(backend, batches[0], evaluated)


def mask_taps(
    evaluated: Mapping[str, Array],
    trained: Mapping[str, Array],
    sites: Mapping[str, str],
    p: float,
    roundoff: float,
) -> dict[str, Any]:
    """Claims about every site, from a trace in evaluation mode and one in training mode.

    The second replays the first, gradients included: each site starts from the same numbers,
    independent of earlier dropout.
    """
    taps: dict[str, Any] = {}
    masks: dict[str, Array] = {}
    for site, source in sites.items():
        given, output = evaluated[source], trained[site]
        kept = (output != 0) & (given != 0)
        masks[site] = kept
        taps |= {f"{site}/{n}": v for n, v in site_claims(given, output, p, roundoff).items()}
        taps[f"{site}/elements"] = given.size
        ratio = output[kept].astype(np.float64) / given[kept]
        taps[f"{site}/scale"] = float(np.median(ratio)) if ratio.size else 0.0
        taps[f"{site}/nothing dropped in evaluation"] = np.array_equal(evaluated[site], given)
        passed = np.where(kept, evaluated[f"d/{site}"] / (1 - p), 0)
        slope = trained[f"d/{source}"]
        taps[f"{site}/gradient has the same mask"] = np.allclose(
            slope[given != 0], passed[given != 0], rtol=16 * roundoff, atol=0
        )
    return taps | {"sites draw apart": draw_apart(masks, p)}


def sites(taps: Mapping[str, Array], made_by: Mapping[str, TapSpec]) -> dict[str, str]:
    """Dict: output of each recorded dropout -> its input, by the architecture's table."""
    return {
        name: row.reads[0]
        for name, row in made_by.items()
        if row.operation == "dropout" and name in taps
    }


def site_claims(given: Array, output: Array, p: float, roundoff: float) -> dict[str, bool]:
    """Each element is dropped with probability p independently, or else divided by 1 - p."""
    known = given != 0  # a zero does not show whether it was dropped
    dropped = (output == 0) & known
    whole = given.astype(np.float64) / (1 - p)
    scaled = np.abs(output - whole) <= 8 * roundoff * np.abs(whole)
    alike, nearby, lines = True, p * p + (1 - p) ** 2, True
    for axis, length in enumerate(given.shape):
        if length < 2:
            continue
        even, odd = (slice(start, 2 * (length // 2), 2) for start in (0, 1))
        before = (slice(None),) * axis
        pair = known[*before, even] & known[*before, odd]
        equal = dropped[*before, even] == dropped[*before, odd]
        alike &= likely(int((equal & pair).sum()), int(pair.sum()), nearby)
        empty = dropped.all(axis=axis)
        lines &= likely(int(empty.sum()), empty.size, p**length, "greater")
    return {
        "zero or divided by 1 - p": bool((dropped | scaled).all()),
        "share of zeros is p": likely(int(dropped.sum()), int(known.sum()), p),
        "neighbours are independent": alike,
        "no line is dropped whole": lines,
    }


def likely(count: int, trials: int, probability: float, side: str = "two-sided") -> bool:
    """Whether CHANCE allows this count of independent trials; False without trials."""
    return trials > 0 and bool(binomtest(count, trials, probability, side).pvalue >= CHANCE)


def draw_apart(masks: Mapping[str, Array], p: float) -> bool:
    """Whether masks of one shape agree as often as independent masks do."""
    names = list(masks)
    return all(
        likely(int((masks[a] == masks[b]).sum()), masks[a].size, p * p + (1 - p) ** 2)
        for i, a in enumerate(names)
        for b in names[:i]
        if masks[a].shape == masks[b].shape
    )


def update_claims(
    backend: Backend, batch: Batch, undropped: Mapping[str, Array]
) -> dict[str, bool]:
    """Claims about the masks of updates. The rate is 0, so the parameters do not change.

    `undropped` holds `loss` and `logits` for the same weights and batch without dropout.
    """

    def losses(updates: int, between: bool = False, copies: int = 1) -> list[float]:
        backend.load_params(CHECKS.params())
        values = []
        for _ in range(updates):
            report = backend.fetch(backend.train_step([batch] * copies, 0.0))
            values.append(float(report["loss"]))
            if between:
                evaluated.append(backend.fetch(backend.eval_step(batch.images))["logits"])
        return values

    evaluated: list[Array] = []
    plain, again, twice = losses(2), losses(2, between=True), losses(1, copies=2)
    logits, loss = undropped["logits"], float(undropped["loss"])
    return {
        "every update drops": all(abs(value - loss) > SAME_LOSS * loss for value in plain + again),
        "updates draw apart": plain[0] != plain[1],
        "an update draws the same again": plain[0] == again[0],
        "an evaluation in between changes nothing": plain[1] == again[1],
        "micro-batches draw apart": plain[0] != twice[0],
        "nothing dropped in evaluation": all(
            np.linalg.norm(value - logits) <= SAME_LOSS * np.linalg.norm(logits)
            for value in evaluated
        ),
    }

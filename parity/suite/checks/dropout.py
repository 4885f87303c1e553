"""Dropout: masks at every site, and when they change.

Masks are the one thing that may differ between frameworks; claims about them are tests at a level
of CHANCE, so that a right mask does not fail in practice.
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
from transfg_core.models.rows import Tap

CHANCE = 1e-9  # a right mask fails a test this often; a trace holds about a hundred tests
DROPOUT = 0.3
SAME_LOSS = 1e-4  # relative; rounding is below 1e-5, dropout of this size moves a loss by 1e-2


def dropout(name: str, config: Config, batches: Sequence[Batch]) -> dict[str, Any]:
    """Masks at every site, and when they change."""
    backend = load_backend(name, changed(config, model={"dropout": DROPOUT}))
    backend.load_params(CHECKS.params())
    evaluated = backend.trace(batches[0], fine=True)
    trained = backend.trace(batches[0], evaluated, fine=True, training=True)
    roundoff = ROUNDOFF[config.run.precision]
    found = sites(evaluated, taps_of(config.model))
    taps = mask_taps(evaluated, trained, found, DROPOUT, roundoff)
    return taps | update_claims(backend, batches[0], evaluated)


def mask_taps(
    evaluated: Mapping[str, Array],
    trained: Mapping[str, Array],
    sites: Mapping[str, str],
    p: float,
    roundoff: float,
) -> dict[str, Any]:
    """Claims about every site, from a trace in evaluation mode and one in training mode.

    The latter replays the former, gradients too: each site starts from the same numbers, whatever
    was dropped before it.
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


def sites(taps: Mapping[str, Array], made_by: Mapping[str, Tap]) -> dict[str, str]:
    """Output of each dropout that was recorded -> its input, by the architecture's table."""
    return {
        name: row.reads[0]
        for name, row in made_by.items()
        if row.operation == "dropout" and name in taps
    }


def site_claims(given: Array, output: Array, p: float, roundoff: float) -> dict[str, bool]:
    """Each element is dropped with probability p on its own, or else divided by 1 - p."""
    known = given != 0  # elsewhere nothing tells whether it was dropped
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
        gone = dropped.all(axis=axis)
        lines &= likely(int(gone.sum()), gone.size, p**length, "greater")
    return {
        "zero or divided by 1 - p": bool((dropped | scaled).all()),
        "share of zeros is p": likely(int(dropped.sum()), int(known.sum()), p),
        "neighbours are independent": alike,
        "no line is dropped whole": lines,
    }


def likely(count: int, trials: int, probability: float, side: str = "two-sided") -> bool:
    """Whether a count of independent trials is one that CHANCE allows; no trials show nothing."""
    return trials > 0 and bool(binomtest(count, trials, probability, side).pvalue >= CHANCE)


def draw_apart(masks: Mapping[str, Array], p: float) -> bool:
    """Masks of one shape agree as often as independent ones do."""
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
    """How the masks of updates relate; the rate is 0, so the parameters stay as they are.

    `undropped` holds `loss` and `logits` of the same weights and batch without dropout.
    """

    def losses(updates: int, between: bool = False, copies: int = 1) -> list[float]:
        backend.load_params(CHECKS.params())
        found = []
        for _ in range(updates):
            report = backend.fetch(backend.train_step([batch] * copies, 0.0))
            found.append(float(report["loss"]))
            if between:
                evaluated.append(backend.fetch(backend.eval_step(batch.images))["logits"])
        return found

    evaluated: list[Array] = []
    plain, again, twice = losses(2), losses(2, between=True), losses(1, copies=2)
    logits, loss = undropped["logits"], float(undropped["loss"])
    return {
        "every update drops": all(abs(one - loss) > SAME_LOSS * loss for one in plain + again),
        "updates draw apart": plain[0] != plain[1],
        "an update draws the same again": plain[0] == again[0],
        "an evaluation in between changes nothing": plain[1] == again[1],
        "micro-batches draw apart": plain[0] != twice[0],
        "nothing dropped in evaluation": all(
            np.linalg.norm(found - logits) <= SAME_LOSS * np.linalg.norm(logits)
            for found in evaluated
        ),
    }

"""The mistakes in SwinFC's modules that have a name are recognised, from A's inputs alone."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from parity.cases.case import BY_NAME
from parity.comparison.trace import Trace
from parity.diagnose.finding import Finding
from parity.suite.causes import explain
from parity.suite.causes.context import Context
from parity.suite.locate import LOSSES, find_causes
from transfg_core.config.swinfc import SwinFCConfig
from transfg_core.models.layout import taps_of

RNG = np.random.default_rng(11)
MODEL = SwinFCConfig(classes=5, depths=(1, 1, 1, 2), heads=(1, 2, 2, 4), memories=3)
B, F = 3, 6  # of the maps, one position is zero everywhere, as behind ReLU
MAPS = {
    name: RNG.standard_normal((B, F, rows, columns)) * 0.7
    for name, rows, columns in (("align2", 5, 4), ("align3", 3, 2), ("align4", 2, 2))
}

MAPS["align3"][:, :, 1, 1] = 0


def noisy(value, seed):
    error = 3e-7 * np.random.default_rng(seed).standard_normal(value.shape)
    return np.asarray(value * (1 + error)).astype(np.float32)


def codes(tap, found, expected, taps, params=None, **settings):
    """The codes of the causes, best first."""
    context = Context(taps, params or {}, taps_of(MODEL), **settings)
    return [cause.code for cause in explain(tap, noisy(found, 1), noisy(expected, 2), context)]


def fusion(sign=-1, over=1, weights_of_own=False):
    """Position by position: what align2 lacks of the others, or a mistake; then the mean."""
    own = MAPS["align2"].reshape(B, F, -1)
    total = own.copy()
    for name in ("align3", "align4"):
        other = MAPS[name].reshape(B, F, -1)
        products = np.einsum("bfn,bfs->bns", own, other)
        weights = softmax(sign * products, axis=2 if over == 1 else 1)
        if weights_of_own:
            weights = softmax(sign * products, axis=1)
            total += np.einsum("bfn,bns->bf", own, weights)[..., None] / other.shape[2]
        else:
            total += np.einsum("bfs,bns->bfn", other, weights)
    return total.mean(2)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("sign", fusion(sign=1)),
        ("softmax axis", fusion(over=0)),
        ("exchanged", fusion(weights_of_own=True)),
        ("left out", MAPS["align2"].mean((2, 3))),
    ],
    ids=["sign", "axis", "exchanged", "alone"],
)
def test_fusion(code, found):
    assert codes("pooled2", found, fusion(), MAPS)[0] == code


def test_softmax_over_the_wrong_axis():
    x = RNG.standard_normal((B, F, 5, 1))
    tap, taps = "eaca2.ca.by_row", {"eaca2.ca.rows": x}
    assert codes(tap, softmax(x, axis=1), softmax(x, axis=2), taps)[0] == "softmax axis"
    assert "no softmax" in codes(tap, x, softmax(x, axis=2), taps)


def test_memories_without_the_map():
    x, read = RNG.standard_normal((B, F, 4, 5)), RNG.standard_normal((B, 3, 20, 1))
    weight = RNG.standard_normal((F, 3, 1, 1))
    written = np.einsum("fm,bmno->bfno", weight[:, :, 0, 0], read)
    taps, params = {"map2": x, "eaca2.ea.norm": read}, {"eaca.0.ea.write.weight": weight}
    right = x.reshape(B, F, 20, 1) + written
    assert codes("eaca2.ea.out", written, right, taps, params)[0] == "no residual"


def test_means_of_rows():
    maps = softmax(RNG.standard_normal((B, 8, 6, 6)), axis=-1)
    assert "rows" in codes("part_scores", maps.mean(-1), maps.mean(-2), {})


def test_tokens_counted_from_zero():
    x, index = RNG.standard_normal((B, 6, F)), RNG.integers(1, 6, (B, 8))
    taps = {"norm": x, "part_index": index}
    right = np.take_along_axis(x, index[..., None] - 1, axis=1)
    found = np.take_along_axis(x, index[..., None], axis=1)
    assert codes("part_tokens", found, right, taps)[0] == "index"


def test_weights_of_stages():
    losses = {"cross_entropy": 1.2, "stage_loss2": 1.9, "stage_loss3": 2.3, "stage_loss4": 1.1}
    taps = {name: np.array(value) for name, value in (losses | {"contrastive": 0.2}).items()}
    parts = [losses[f"stage_loss{number}"] for number in (2, 3, 4)]

    def total(weights):
        return np.array(1.4 + sum(b * loss for b, loss in zip(weights, parts, strict=True)))

    found = codes(
        "loss", total((0.8, 0.6, 0.4)), total((0.4, 0.6, 0.8)), taps, stages=(0.4, 0.6, 0.8)
    )
    assert "weights" in found
    assert "left out" in codes(
        "loss", np.array(1.4), total((0.4, 0.6, 0.8)), taps, stages=(0.4, 0.6, 0.8)
    )


def test_isolated_losses_are_explained_by_their_own_terms():
    """A loss is the input of the next and is not replayed; the whole pass has other last digits."""
    case = BY_NAME["swinfc"]
    config = case.config("float64")
    names = ("cross_entropy", "stage_loss2", "stage_loss3", "stage_loss4", "contrastive")
    terms = dict(zip(names, (1.2, 1.9, 2.3, 1.1, 0.3), strict=True))

    def losses(stage, weights, factor=1.0):
        values = {name: value * factor for name, value in terms.items()}
        shares = zip(weights, names[1:4], strict=True)
        total = values["cross_entropy"] + sum(b * values[name] for b, name in shares)
        values["loss"] = total + values["contrastive"]
        taps = {f"{stage}/{name}": np.array(value) for name, value in values.items()}
        subject = {"settings": config.model_dump(mode="json")}
        manifest = {"subject": subject, "producer": {"name": "torch"}, "precision": "float64"}
        return Trace(Path("somewhere"), manifest, taps)

    weights = config.loss.stages
    found = Finding(case.name, "pair", "float64", LOSSES, "loss", "forward")
    baseline, candidate = losses(LOSSES, weights), losses(LOSSES, weights[::-1])
    whole = losses("losses", weights, factor=1 + 1e-7)
    causes = find_causes(found, baseline, candidate, whole).causes
    assert [code for code, _ in causes] == ["weights"]

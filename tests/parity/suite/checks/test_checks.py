"""The stages of the checks: each claim holds for right code and fails on a planted fault."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from claims import failing, given
from PIL import Image

from parity.cases.case import BATCH
from parity.comparison.judge import judge
from parity.comparison.trace import read_trace, write_trace
from parity.comparison.verdict import Evidence
from parity.suite.checks import CHECKS, rates, samples, tagged
from parity.suite.checks.bits import crc
from parity.suite.checks.case import changed
from parity.suite.checks.checkpoints import agrees, golden_params
from parity.suite.checks.rates import (
    GROUPED,
    LAYERS_BELOW,
    RATES,
    SCHEDULES,
    defined_rates,
    expected_rate,
    measured_rate,
    schedules,
)
from parity.suite.checks.samples import (
    DEVIATION,
    MEAN,
    RESIZED,
    TOY_SIZE,
    data_config,
    normalised,
    order_claims,
    pixel_claims,
    place_of,
)
from transfg_core import schedule
from transfg_core.backend import Batch
from transfg_core.config.loading import build_config
from transfg_core.data import loader, mixing
from transfg_core.data import sample_reader as records
from transfg_core.data.datasets import read_dataset
from transfg_core.data.loader import TrainStream, eval_batches
from transfg_core.data.mixing import Mix
from transfg_core.data.toy.writing import write_toy
from transfg_core.params.groups import param_groups

ROOT = Path(__file__).resolve().parents[4]
CONFIG = CHECKS.config()


# Learning rates


def test_schedules_of_every_config_are_checked():
    for path in (ROOT / "configs").glob("*.yaml"):
        optim = build_config(yaml.safe_load(path.read_text("utf-8")), str(path)).optim
        assert (optim.schedule, 4 if optim.warmup else 0) in SCHEDULES, path


def test_schedules_follow_their_definition(monkeypatch):
    taps = schedules()
    assert not failing({n: v for n, v in taps.items() if n.endswith("defined")})
    right = schedule.lr_at
    monkeypatch.setattr(rates, "lr_at", lambda k, o, steps: right(max(k - 1, 1), o, steps))
    late = schedules()
    for name, value in late.items():
        if name.endswith("/crc"):
            assert (value == taps[name]) == name.startswith("constant, warm-up 0")
    assert len({n for n, v in late.items() if n.endswith("defined") and not v}) == 5


def test_defined_rates_by_hand():
    assert defined_rates("linear", 4)[[0, 3, 9, 15]] == pytest.approx([0.0075, 0.03, 0.015, 0])
    assert defined_rates("cosine", 0)[[7, 15]] == pytest.approx([0.015, 0], abs=1e-17)


def test_expected_rates_match_the_groups():
    config = changed(CONFIG, optim=GROUPED)
    groups = param_groups(config.model, config.optim)
    for name, (scale, decay) in groups.items():
        assert expected_rate(name) == pytest.approx((scale, scale * decay))
    assert {decay for _, decay in groups.values()} == {decay for _, _, decay in RATES}
    assert {layers for _, layers in LAYERS_BELOW} == set(range(config.model.depth + 2))


@pytest.mark.parametrize(("rate", "decay"), [(5.0, 0.0), (0.5, 0.1), (0.0, 0.0)])
def test_rates_are_measured_from_a_step(rate, decay):
    direction, param = 1e-3 * given(0), given(1)
    before = param - np.float32(0.5) * (rate * direction + decay * param)
    step = (before.astype(np.float64) - param) / -0.5
    assert measured_rate(step, direction, param) == pytest.approx((rate, decay), abs=1e-3)


# Loading


def test_one_bit_changes_the_crc():
    arrays = {"a": given(), "b": given(3)}
    other = arrays | {"b": np.nextafter(arrays["b"], np.float32(9))}
    assert crc(arrays) != crc(other) and crc(arrays) != crc({"a": arrays["b"], "b": arrays["a"]})
    assert crc(arrays) == crc({name: value.astype(np.float64) for name, value in arrays.items()})


def test_loaded_arrays_are_compared_with_what_is_expected():
    expected = golden_params("loaded_overlap_62")
    loaded = expected | {"head.bias": given()}
    assert agrees(loaded, expected, near=True) and not agrees(loaded, expected, near=False)
    moved = loaded | {"pos_embed": np.roll(expected["pos_embed"], 1, axis=1)}
    assert not agrees(moved, expected, near=True)
    assert not agrees({"head.bias": given()}, expected, near=True)


# Data


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("checks") / "toy"
    write_toy(root, TOY_SIZE, lambda text: None)
    return str(root)


@pytest.fixture(scope="module")
def clean(toy):
    return samples.data(CONFIG, toy)


def batches(toy):
    config = data_config(CONFIG, toy, "crop")
    dataset = read_dataset(config.data, 0)
    stream = TrainStream(dataset.train, config.data, BATCH, 0)
    train = [normalised(next(stream), config.data) for _ in range(7)]
    stream.close()
    found = eval_batches(dataset.test, config.data, BATCH)
    test = [normalised(Batch(b.images, b.labels), config.data) for b in found]
    return train, test, dataset


def claims_of(taps):
    return {n: v for n, v in taps.items() if isinstance(v, bool | np.bool_)}


def changed_crcs(taps, clean):
    """The names of CRC-32 that differ from those of the right loader."""
    return {n for n in clean if n.endswith("crc") and not np.array_equal(taps[n], clean[n])}


def test_right_data_hold_every_claim(toy, clean):
    assert len(claims_of(clean)) == 33 and not failing(claims_of(clean))
    assert clean["crop/test/size"].tolist() == [6, 6, 6, 2]
    assert clean["crop/train/size"].tolist() == [6] * 7
    assert not changed_crcs(samples.data(CONFIG, toy), clean)


def test_other_statistics_are_found(toy, clean, monkeypatch):
    right = samples.normalise
    monkeypatch.setattr(samples, "normalise", lambda images, data: right(images[..., ::-1], data))
    taps = samples.data(CONFIG, toy)
    assert changed_crcs(taps, clean) == {n for n in clean if n.endswith("crc")}
    assert failing(claims_of(taps)) >= {"cut from the resized image", "as defined"}


def test_a_cut_before_resizing_is_found(toy, clean, monkeypatch):
    def early(image, data):
        height, width = data.crop
        top, left = (image.height - height) // 2, (image.width - width) // 2
        return np.array(image.crop((left, top, left + width, top + height)))

    monkeypatch.setattr(records, "eval_transform", early)
    taps = samples.data(CONFIG, toy)
    assert changed_crcs(taps, clean) == {n for n in clean if n.endswith("test/crc")}
    assert failing(claims_of(taps)) == {"as defined"}


def test_normalising_before_resizing_is_found(toy):
    """A resize rounds bytes; it does not round numbers that were normalised before."""
    train, test, dataset = batches(toy)
    top, left = (RESIZED[0] - 44) // 2, (RESIZED[1] - 32) // 2

    def early(path):
        with Image.open(path) as image:
            normal = (np.asarray(image.convert("RGB")) / 255 - MEAN) / DEVIATION
        planes = [
            Image.fromarray(plane.astype(np.float32)).resize(RESIZED[::-1], Image.BILINEAR)
            for plane in normal.transpose(2, 0, 1)
        ]
        return np.stack(planes)[:, top : top + 44, left : left + 32]

    images = np.stack([early(path) for path in dataset.test.paths])
    wrong = [Batch(images, dataset.test.labels)]
    assert pixel_claims(train, test, dataset)["test/as defined"]
    assert np.abs(images - np.concatenate([b.images for b in test])).max() < 0.02
    assert not pixel_claims(train, wrong, dataset)["test/as defined"]


def test_order_claims_fail_on_planted_orders(toy):
    train, test, dataset = batches(toy)
    assert not failing(order_claims(train, test, dataset))
    assert failing(order_claims(train, test[:-1], dataset)) == {"in order, whole"}
    assert failing(order_claims(train, test[::-1], dataset)) == {"in order, whole"}
    assert "every image once an epoch" in failing(order_claims(train[::-1], test, dataset))
    ordered = [
        Batch(b.images, np.arange(6 * i, 6 * i + 6) % 20) for i, b in enumerate(train)
    ]  # not shuffled, and the same in both epochs
    assert failing(order_claims(ordered, test, dataset)) == {"epochs differ", "shuffled"}


def test_one_order_for_all_epochs_is_found(toy, clean, monkeypatch):
    right = records.epoch_order
    monkeypatch.setattr(records, "epoch_order", lambda seed, epoch, n: right(seed, 0, n))
    taps = samples.data(CONFIG, toy)
    assert failing(claims_of(taps)) == {"epochs differ"}
    assert changed_crcs(taps, clean) == {n for n in clean if n.endswith("train/crc")}


@pytest.mark.parametrize(
    ("change", "claims"),
    [
        ({"share": 0.4}, {"pixels have the shares of the targets"}),
        ({"targets": 1}, {"the classes are those of the image and the one before"}),
        ({"labels": 1}, {"the label has the larger share"}),
    ],
    ids=["share", "targets", "labels"],
)
def test_wrong_mixtures_are_found(toy, monkeypatch, change, claims):
    right = loader.mix_batch

    def wrong(batch, mix, data, classes):
        mixed = right(batch, mix, data, classes)
        if "share" in change:
            return mixed._replace(targets=right(batch, Mix(0.4), data, classes).targets)
        values = mixed._asdict()
        return mixed._replace(**{key: np.roll(values[key], by, 0) for key, by in change.items()})

    monkeypatch.setattr(loader, "mix_batch", wrong)
    assert claims <= failing(claims_of(samples.data(CONFIG, toy)))


def test_an_exchanged_share_is_found(toy, monkeypatch):
    right = mixing.blend
    monkeypatch.setattr(
        mixing,
        "blend",
        lambda values, share: right(values, 1 - share if values.ndim == 2 else share),
    )
    assert "pixels have the shares of the targets" in failing(claims_of(samples.data(CONFIG, toy)))


def test_places():
    source = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    cut = source[3:11, 1:7].astype(np.float64)
    assert place_of(cut, source, (8, 6)) == (3, 1, False)
    assert place_of(cut[:, ::-1], source, (8, 6)) == (3, 1, True)
    assert place_of(cut[::-1], source, (8, 6)) is None


# Predictions


class Constant:
    """A backend whose logits depend only on the pixels."""

    name = "constant"

    def load_params(self, arrays):
        pass

    def eval_step(self, images):
        matrix = np.random.default_rng(0).standard_normal((3 * 44 * 32, 20))
        return {"logits": (images.reshape(len(images), -1) @ matrix).astype(np.float32)}

    def fetch(self, handle):
        return handle


def test_predictions_are_of_the_whole_split(toy, monkeypatch):
    right = samples.predictions(Constant(), CONFIG, toy)
    assert right["images"] == 20 and not failing(claims_of(right))

    def short(*arguments):
        yield from (b for b in eval_batches(*arguments) if len(b.labels) == BATCH)

    monkeypatch.setattr("transfg_core.evaluate.eval_batches", short)
    lacking = samples.predictions(Constant(), CONFIG, toy)
    assert lacking["images"] == 18
    assert {"every image once", "labels are the split's"} <= failing(claims_of(lacking))


def test_a_claim_that_fails_in_both_is_judged_different(tmp_path):
    """Both traces contain a fault of the shared core."""
    manifest = {"producer": {"name": "x"}, "precision": "float32", "subject": {}}
    manifest["kind"] = "checks"
    for holds, verdict in ((True, "equivalent"), (False, "different")):
        path = tmp_path / f"{holds}.npz"
        write_trace(path, tagged("data", {"claim": holds, "count": 3}), manifest)
        trace = read_trace(path)
        assert [row.verdict for row in judge(Evidence(trace, trace))] == [verdict, "equivalent"]

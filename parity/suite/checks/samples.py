"""Data and predictions: batches of the toy set, their order, pixels and predictions.

Letters: B batch, H height, W width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from parity.cases.case import BATCH
from parity.comparison.sketch import Array
from parity.suite.checks.bits import crc
from parity.suite.checks.case import CHECKS, changed
from transfg_core.backend import Backend, Batch
from transfg_core.config.sections import Config, DataConfig, ToyConfig
from transfg_core.data.datasets import Dataset, read_dataset
from transfg_core.data.loader import TrainStream, eval_batches
from transfg_core.data.transforms import normalise
from transfg_core.evaluate import evaluate

# one image of each class in both splits, so that an epoch's labels are a permutation
RESIZED = (52, 40)
TOY = {"name": "toy", "resize": list(RESIZED), "threads": 2}
TOY_SIZE = ToyConfig(train_per_class=1, test_per_class=1, size=56)

DATA: dict[str, dict[str, Any]] = {
    "crop": {"normalise": "imagenet"},
    "random_resized_crop": {"random_resized_crop": [0.3, 1.0], "normalise": "half"},
    "autoaugment": {"auto_augment": True, "rotation": 15.0, "normalise": "cifar"},
    "colour": {
        "interpolation": "bicubic",
        "color_jitter": [0.4, 0.4, 0.4, 0.1],
        "grayscale": 0.2,
        "random_erasing": {"probability": 0.5, "value": "noise"},
    },
    "mixed": {"mixup": 0.8, "cutmix": 1.0},
}
# of the normalisation "imagenet", by channel
MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])


def data_config(config: Config, root: str, setting: str) -> Config:
    """The configuration that reads the toy set at `root` with one of the DATA settings."""
    section = TOY | DATA[setting] | {"root": root, "toy": TOY_SIZE.model_dump()}
    sizes = {"batch_size": BATCH, "eval_batch_size": BATCH}
    return changed(config, data=section, train=sizes)


def data(config: Config, root: str) -> dict[str, Any]:
    """For each setting, two epochs of training and the test split, batch by batch."""
    taps: dict[str, Any] = {}
    for setting in DATA:
        new = data_config(config, root, setting)
        dataset = read_dataset(new.data, new.run.seed)
        train = train_batches(dataset, new)
        batches = eval_batches(dataset.test, new.data, BATCH)
        test = [normalised(Batch(b.images, b.labels), new.data) for b in batches]
        taps |= described(f"{setting}/train", train) | described(f"{setting}/test", test)
        taps |= {f"{setting}/{n}": v for n, v in order_claims(train, test, dataset).items()}
        if setting == "crop":
            claims = pixel_claims(train, test, dataset)
            taps |= {f"{setting}/{name}": value for name, value in claims.items()}
        if setting == "mixed":
            plain = changed(new, data={"mixup": 0.0, "cutmix": 0.0})
            claims = mix_claims(train, train_batches(dataset, plain))
            taps |= {f"{setting}/train/{name}": value for name, value in claims.items()}
    return taps


def train_batches(dataset: Dataset, config: Config) -> list[Batch]:
    """The batches of the first two epochs, and what is left of the last one."""
    count, classes = -(-2 * len(dataset.train.labels) // BATCH), len(dataset.classes)
    stream = TrainStream(dataset.train, config.data, BATCH, config.run.seed, classes=classes)
    batches = [normalised(next(stream), config.data) for _ in range(count)]
    stream.close()
    return batches


def normalised(batch: Batch, data: DataConfig) -> Batch:
    """The batch with images (B, 3, H, W) float32, normalised."""
    images = batch.images
    return batch._replace(images=normalise(images, data) if images.dtype == np.uint8 else images)


def described(prefix: str, batches: Sequence[Batch]) -> dict[str, Any]:
    """CRC-32, sum and size of each batch, the labels of all, and their targets if there are any."""
    targets = [batch.targets for batch in batches if batch.targets is not None]
    return ({f"{prefix}/targets": np.concatenate(targets)} if targets else {}) | {
        f"{prefix}/crc": np.array([crc({"images": batch.images}) for batch in batches]),
        f"{prefix}/sum": np.array([batch.images.sum(dtype=np.float64) for batch in batches]),
        f"{prefix}/size": np.array([len(batch.labels) for batch in batches]),
        f"{prefix}/labels": np.concatenate([batch.labels for batch in batches]),
    }


def order_claims(train: Sequence[Batch], test: Sequence[Batch], dataset: Dataset) -> dict[str, Any]:
    """Claims about the order of a data set with one image per class and split."""
    labels = np.concatenate([batch.labels for batch in train])
    count = len(dataset.classes)
    first, second = labels[:count], labels[count : 2 * count]
    return {
        "train/every image once an epoch": all(
            np.array_equal(np.sort(epoch), np.arange(count)) for epoch in (first, second)
        ),
        "train/epochs differ": not np.array_equal(first, second),
        "train/shuffled": not np.array_equal(first, np.arange(count)),
        "train/whole batches": all(len(batch.labels) == BATCH for batch in train),
        "test/in order, whole": np.array_equal(
            np.concatenate([batch.labels for batch in test]), dataset.test.labels
        ),
    }


def mix_claims(mixed: Sequence[Batch], plain: Sequence[Batch]) -> dict[str, bool]:
    """Claims about mixed batches, beside the same batches unmixed.

    An image and its partner, the image before it, have the shares of their classes in the targets.
    """
    shares, right, labels, kinds = [], [], [], set()
    for batch, source in zip(mixed, plain, strict=True):
        if batch.targets is None:
            return {"every batch has targets": False}
        x, own = batch.images, source.images
        other, partners = np.roll(own, 1, axis=0), np.roll(source.labels, 1)
        whole = np.eye(batch.targets.shape[1], dtype=np.float32)
        row = int(np.argmax(source.labels != partners))
        share = float(batch.targets[row, source.labels[row]])
        expected = share * whole[source.labels] + (1 - share) * whole[partners]
        cut = bool(((x == own) | (x == other)).all())
        kinds.add(cut)
        if cut:  # equal pixels of both images may lie in the box or beside it
            low, high = (x != own).mean(), (x == other).mean()
            right.append(low <= 1 - share + 1e-6 and 1 - share <= high + 1e-6)
        else:
            right.append(np.allclose(x, share * own + (1 - share) * other, atol=1e-5))
        shares.append(np.allclose(batch.targets, expected, atol=1e-6))
        labels.append(np.array_equal(batch.labels, source.labels if share >= 0.5 else partners))
    return {
        "every batch has targets": True,
        "pixels have the shares of the targets": all(right),
        "the classes are those of the image and the one before": all(shares),
        "the label has the larger share": all(labels),
        "both mixup and cutmix": kinds == {False, True},
    }


def pixel_claims(train: Sequence[Batch], test: Sequence[Batch], dataset: Dataset) -> dict[str, Any]:
    """Claims about pixels with the setting `crop`: resized, then cut, then normalised."""
    size = train[0].images.shape[2:]
    resized = {"train": dataset.train, "test": dataset.test}
    files = {
        split: dict(zip(samples.labels.tolist(), map(read_resized, samples.paths), strict=True))
        for split, samples in resized.items()
    }
    places = [
        place_of(image, files["train"][label], size)
        for batch in train
        for image, label in zip(pixels_of(batch.images), batch.labels.tolist(), strict=True)
    ]
    known = [place for place in places if place]
    images = np.concatenate([batch.images for batch in test])
    top, left = ((n - c) // 2 for n, c in zip(RESIZED, size, strict=True))
    expected = [files["test"][y] for y in dataset.test.labels.tolist()]
    middle = np.stack(expected)[:, top : top + size[0], left : left + size[1]]
    normal = ((middle / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2)
    return {
        "train/cut from the resized image": len(known) == len(places),
        "train/cut and mirrored in many ways": len({p[:2] for p in known}) > len(places) / 4
        and {p[2] for p in known} == {False, True},
        "test/as defined": images.shape == normal.shape and np.allclose(images, normal, atol=1e-5),
    }


def read_resized(path: str) -> Array:
    """(H, W, 3) uint8 after `data.resize`."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(RESIZED[::-1], Image.Resampling.BILINEAR))


def pixels_of(images: Array) -> Array:
    """Normalised (B, 3, H, W) -> (B, H, W, 3) in 0..255, not rounded to whole numbers."""
    return np.asarray((images.transpose(0, 2, 3, 1) * DEVIATION + MEAN) * 255)


def place_of(image: Array, source: Array, size: Sequence[int]) -> tuple[int, int, bool] | None:
    """Where an image (H, W, 3) was cut from its source: (top, left, mirrored), or None."""
    height, width = size
    windows = sliding_window_view(source, (height, width, 3))[:, :, 0]
    for mirrored in (False, True):
        view = image[:, ::-1] if mirrored else image
        fits = (np.abs(windows - view) < 0.01).all(axis=(2, 3, 4))
        if fits.any():
            top, left = (int(i) for i in np.argwhere(fits)[0])
            return top, left, mirrored
    return None


def predictions(backend: Backend, config: Config, root: str) -> dict[str, Any]:
    """Predictions for each image of the test split, with the start weights.

    The last batch of the split is short.
    """
    backend.load_params(CHECKS.params())
    new = data_config(config, root, "crop")
    dataset = read_dataset(new.data, new.run.seed)
    result = evaluate(backend, dataset.test, new)
    prediction = result.logits.argmax(axis=-1)
    labels, count = dataset.test.labels, len(dataset.test.paths)
    right = int((prediction == labels[: len(prediction)]).sum()) if len(prediction) else 0
    return {
        "images": result.images,
        "index": result.index,
        "labels": result.labels,
        "prediction": prediction,
        "logits": result.logits,
        "last batch is short": count % BATCH != 0,
        "every image once": result.images == count
        and np.array_equal(result.index, np.arange(count)),
        "labels are the split's": np.array_equal(result.labels, labels),
        "top1 counts every image": np.isclose(result.top1 * count, right),
    }

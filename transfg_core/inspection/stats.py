"""The command `transfg data stats`: the numbers that a recipe needs."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transfg_core.config.loading import build_config
from transfg_core.config.sections import NORMALISATION, Config
from transfg_core.config.yaml_text import dump_yaml
from transfg_core.data.datasets import Dataset
from transfg_core.data.walk import printable
from transfg_core.errors import RunFailed
from transfg_core.inspection.balance import Balance, balance_of
from transfg_core.inspection.channels import Channels, count_channels
from transfg_core.inspection.subject import load_subject, read_subject, splits_of
from transfg_core.inspection.suggest import UNEVEN, Sizes, snippet, suggest_sizes
from transfg_core.inspection.tables import SHARES, balance_text, quantiles_of

FORMAT = "data-stats/1"
EPOCHS = (1, 10, 50, 100)
COLUMN = 14  # characters


def data_stats(source: Path, overrides: Iterable[str] = ()) -> tuple[str, dict[str, Any]]:
    """The numbers of a data set's training split as text, and as a record for JSON.

    Args:
        source: a configuration, or the folder of a data set (`load_subject`).
        overrides: key=value.

    Raises:
        UserError: the configuration is wrong, or no run could read the data set.
        RunFailed: no image can be read, or a worker process died.
    """
    config, assumed = load_subject(source, overrides)
    dataset = read_subject(config)
    channels = count_channels(dataset.train, config.data)
    if not channels.pixels:
        reason, count = next(iter(channels.broken.items()), ("there is none", 0))
        raise RunFailed(
            f"{config.data.root}: expected readable training images, found none among "
            f"{len(dataset.train.paths)}: {reason} ({count}); "
            f"`transfg data check {source}` names them"
        )
    balance = balance_of(dataset, dataset.train.labels)
    sizes = suggest_sizes(channels.sizes, config, bool(assumed))
    tree = snippet(config, sizes, balance, bool(assumed))
    build_config(tree, "the suggested configuration")  # what is printed can be loaded
    sections = [
        _head(config, dataset, channels, assumed),
        _side_lines(channels, config, sizes),
        _channel_lines(channels, config),
        _length_lines(config, balance),
        _class_lines(balance),
        [
            "configuration (replace these keys in yours):",
            "",
            dump_yaml(tree, compact=True).rstrip(),
        ],
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections)
    return text, _record(config, dataset, channels, balance, sizes, tree)


def _head(config: Config, dataset: Dataset, channels: Channels, assumed: str) -> list[str]:
    splits = [f"{len(samples.paths)} {name}" for name, samples in splits_of(dataset).items()]
    lines = [
        f"{config.data.name} in {printable(config.data.root)}: {len(dataset.classes)} classes, "
        f"{', '.join(splits)} images; the numbers below are those of train"
    ]
    if assumed:
        lines.append(assumed)
    lines += [
        f"not counted: {count} images: {printable(reason)}"
        for reason, count in list(channels.broken.items())[:10]
    ]
    return lines


def _row(name: str, cells: Sequence[str], width: int = COLUMN) -> str:
    return f"{name:{COLUMN}}" + "".join(f"{cell:>{width}}" for cell in cells)


def _side_lines(channels: Channels, config: Config, sizes: Sizes) -> list[str]:
    quantiles = quantiles_of(channels.sizes)
    header = ["least", *(f"{share} %" for share in SHARES[1:-1]), "most"]
    lines = [_row("pixels as read", header, 7)]
    for name, values in quantiles.items():
        form = ".2f" if name == "aspect ratio" else ".0f"
        lines.append(_row(name, [f"{value:{form}}" for value in values], 7))
    data = config.data
    resize = list(data.resize) if isinstance(data.resize, tuple) else data.resize
    suggested = list(sizes.resize) if isinstance(sizes.resize, tuple) else sizes.resize
    return [
        *lines,
        f"now:       data.resize {resize}, data.crop {list(data.crop)}",
        f"suggested: data.resize {suggested}, data.crop {list(sizes.crop)}",
        f"  ({sizes.reason})",
    ]


def _channel_lines(channels: Channels, config: Config) -> list[str]:
    def numbers(values: Sequence[float]) -> list[str]:
        return [f"{value:.4f}" for value in values]

    data = config.data
    is_resized = data.resize is not None and data.random_resized_crop is None
    what = "after data.resize" if is_resized else "as read"
    lines = [
        _row("channels", ["red", "green", "blue"]),
        _row("mean", numbers(channels.means())),
        _row("deviation", numbers(channels.deviations())),
        f"  (of {channels.pixels} pixels of {len(channels.sizes)} images {what}, in [0, 1])",
    ]
    for name in NORMALISATION:
        means, deviations = channels.after(name)
        mark = " (data.normalise)" if name == data.normalise else ""
        lines.append(
            f"after normalise {name}: means {' '.join(f'{m:+.2f}' for m in means)}, "
            f"deviations {' '.join(f'{s:.2f}' for s in deviations)}{mark}"
        )
    lines.append(
        f"closest to means 0 and deviations 1: {channels.closest()}. Pretrained weights need the "
        "normalisation that they were trained with (`transfg weights`), whatever the images are."
    )
    return lines


def _length_lines(config: Config, balance: Balance) -> list[str]:
    images, batch = int(balance.counts.sum()), config.train.batch_size
    cells = [f"{epochs}: {math.ceil(epochs * images / batch)}" for epochs in EPOCHS]
    return [f"epochs: updates of {batch} images (train.batch_size): " + ", ".join(cells)]


def _class_lines(balance: Balance) -> list[str]:
    lines = [balance_text(balance)]
    weights = balance.weights()
    if balance.ratio > 1:
        low, high = balance.most, balance.fewest
        lines.append(
            f"weights n / (C n_c) that make classes count the same: {weights[low]:.3g} "
            f"({printable(balance.classes[low])}) to {weights[high]:.3g} "
            f"({printable(balance.classes[high])}); --out FILE writes all"
        )
    if balance.ratio >= UNEVEN:
        lines.append("data.balance=true shows each class as often, which does the same")
    return lines


def _record(
    config: Config,
    dataset: Dataset,
    channels: Channels,
    balance: Balance,
    sizes: Sizes,
    tree: dict[str, Any],
) -> dict[str, Any]:
    rows = zip(dataset.classes, balance.counts.tolist(), balance.weights().tolist(), strict=True)
    return {
        "format": FORMAT,
        "data": config.data.model_dump(mode="json"),
        "seed": config.run.seed,
        "images": {name: len(samples.paths) for name, samples in splits_of(dataset).items()},
        "not_counted": channels.broken,
        "sizes": {"percent": list(SHARES), **quantiles_of(channels.sizes)},
        "suggested": {"resize": sizes.resize, "crop": sizes.crop, "reason": sizes.reason},
        "pixels": channels.pixels,
        "mean": channels.means(),
        "deviation": channels.deviations(),
        "normalised": {
            name: dict(zip(("mean", "deviation"), channels.after(name), strict=True))
            for name in NORMALISATION
        },
        "closest_normalisation": channels.closest(),
        "classes": [
            {"name": name, "images": count, "weight": weight} for name, count, weight in rows
        ],
        "configuration": tree,
    }

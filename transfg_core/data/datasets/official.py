"""Facts about the published data sets: official counts, and what is known of their test images.

`data.name` (and `data.level` of FGVC-Aircraft) chooses the row. Training takes both of a set's
training and validation lists where papers do (FGVC-Aircraft, Flowers, Pets); the validation list of
iNat2017 and of WebFG-496 is the test split.
"""

from typing import NamedTuple

from transfg_core.config.sections import DataConfig


class Official(NamedTuple):
    """Numbers of classes and images; `caution` is what a reader of an accuracy must know."""

    classes: int
    train: int
    test: int
    caution: str = ""


_CUB = (
    "ImageNet contains 22 or 23 of the 5,794 test images of CUB-200-2011, as its page says; "
    "weights that were trained on ImageNet have seen them"
)
_DOGS = (
    "Stanford Dogs was made from ImageNet: weights that were trained on ImageNet have seen its "
    "images, those of the test split included"
)
_CIFAR = (  # https://cvjena.github.io/cifair
    "{} of the test images of {} nearly repeat other images, most of them training images (Barz "
    "and Denzler 2020, ciFAIR); a search for equal files misses them"
)

OFFICIAL = {
    "cub": Official(200, 5_994, 5_794, _CUB),
    "nabirds": Official(555, 23_929, 24_633),
    "cars": Official(196, 8_144, 8_041),
    "dogs": Official(120, 12_000, 8_580, _DOGS),
    "aircraft": Official(100, 6_667, 3_333),
    "aircraft family": Official(70, 6_667, 3_333),
    "aircraft manufacturer": Official(30, 6_667, 3_333),
    "flowers": Official(102, 2_040, 6_149),
    "pets": Official(37, 3_680, 3_669),
    "food": Official(101, 75_750, 25_250),
    "inat2017": Official(5_089, 579_184, 95_986),
    "cifar10": Official(10, 50_000, 10_000, _CIFAR.format("3.25 %", "CIFAR-10")),
    "cifar100": Official(100, 50_000, 10_000, _CIFAR.format("10 %", "CIFAR-100")),
    "web-bird": Official(
        200, 18_388, 5_794, f"its test images are those of CUB-200-2011, and {_CUB}"
    ),
    "web-aircraft": Official(100, 13_503, 3_333),
    "web-car": Official(196, 21_448, 8_041),
}


def official(data: DataConfig) -> Official | None:
    """The facts of the data set that a configuration names; None for one of the user's own."""
    level = "" if data.level == "variant" or data.name != "aircraft" else f" {data.level}"
    return OFFICIAL.get(data.name + level)

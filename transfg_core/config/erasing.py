"""The section `data.random_erasing`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from transfg_core.config.fields import Probability, Scale, Section


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1000:
        raise ValueError(f"expected 0 < smallest <= largest <= 1000, found {list(value)}")
    return value


class ErasingConfig(Section):
    """Random erasing of training images; off with probability 0.

    `value` is what the box is filled with: `zero` is black, `mean` the channel means of
    `data.normalise`, `noise` random levels for each pixel and channel.
    """

    probability: Probability = 0.0
    scale: Scale = (0.02, 0.33)  # share of the image's area
    # height over width
    aspect: Annotated[tuple[float, float], Field(strict=False), AfterValidator(_ordered)] = (
        0.3,
        3.3,
    )
    value: Literal["zero", "mean", "noise"] = "mean"

"""`transfg toy`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from transfg_core.config.sections import ToyConfig

DEFAULT = ToyConfig()


def toy(
    root: Annotated[Path, typer.Argument(help="folder to write, such as data/toy")],
    train_per_class: int = DEFAULT.train_per_class,
    test_per_class: int = DEFAULT.test_per_class,
    size: int = DEFAULT.size,
    seed: int = DEFAULT.seed,
) -> None:
    """Render the toy birds as JPEG files in CUB-200-2011's layout, unless they exist."""
    from transfg_core.config.loading import build_config
    from transfg_core.data.toy.writing import ensure_toy

    settings: dict[str, Any] = {
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "size": size,
        "seed": seed,
    }
    ensure_toy(root, build_config({"data": {"toy": settings}}, "toy").data.toy)

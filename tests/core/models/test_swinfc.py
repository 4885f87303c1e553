"""SwinFC's tables: sizes of maps, parameters and multiply-adds beside the published ones."""

from math import prod

import pytest

from transfg_core.config.loading import build_config, load_config
from transfg_core.models import swin, swinfc
from transfg_core.models.layout import param_shapes, param_specs
from transfg_core.params.groups import param_groups
from transfg_core.report.published import CONFIGS

SIZE = (384, 384)


def model(**keys):
    section = {"size": "B", "window": 12, "classes": 1000} | {"name": "swinfc"} | keys
    return build_config({"model": section, "data": {"crop": SIZE}}, "swinfc").model


def multiply_adds(config):
    """In billions."""
    return swinfc.forward_flops(config, SIZE) / 2e9


def learned(config):
    """Millions of parameters without running statistics."""
    shapes, specs = param_shapes(config, SIZE), param_specs(config)
    return sum(prod(shape) for name, shape in shapes.items() if not specs[name].statistic) / 1e6


def test_maps_of_the_paper():
    """Stages 2 to 4 at 384 pixels: 256 x 48 x 48, 512 x 24 x 24, 1024 x 12 x 12; 64 tokens."""
    numbers = swinfc.sizes(model(), SIZE)
    maps = [tuple(numbers[f"{letter}{stage}"] for letter in "DHW") for stage in (1, 2, 3)]
    assert maps == [(256, 48, 48), (512, 24, 24), (1024, 12, 12)] and numbers["Q"] == 64
    assert swin.windows_of(model(), SIZE, 3, 1).count == 1
    assert swinfc.part_grid(model(), SIZE) == (12, 12, 32, 32)


def test_cost_beside_the_published_one():
    """Published: Swin 47.0, SwinFC 59.0. The products of attention maps and of FFM are 4.4."""
    off = dict.fromkeys(("ea", "ca", "ffm"), False)
    backbone = multiply_adds(model(**off))
    assert backbone == pytest.approx(47.08, abs=0.01)
    assert multiply_adds(model()) == pytest.approx(64.06, abs=0.01)
    numbers, fused = swinfc.sizes(model(), SIZE), 1024
    tokens = [numbers[f"T{stage}"] for stage in (1, 2, 3)]
    fusion = fused * (tokens[0] * tokens[1] + tokens[0] * tokens[2] + tokens[1] * tokens[2]) / 1e9
    maps = sum(
        2 * depth * numbers[f"U{stage}"] * 144 * numbers[f"D{stage}"] / 1e9
        for stage, depth in enumerate(model().depths)
    )
    assert fusion == pytest.approx(1.78, abs=0.01) and maps == pytest.approx(2.63, abs=0.01)
    assert multiply_adds(model()) - fusion - maps == pytest.approx(59.65, abs=0.01)


def test_parameters():
    off = dict.fromkeys(("ea", "ca", "ffm"), False)
    assert learned(model(**off)) == pytest.approx(87.90, abs=0.01)
    assert learned(model()) == pytest.approx(114.78, abs=0.01)


def test_the_rates_of_the_paper():
    """On CUB the backbone learns at 0.002, new modules and the classifier at 0.005."""
    config = load_config(CONFIGS / "cub" / "swinfc.yaml", ["model.classes=200"])
    new = ("head.", "eaca.", "align.", "stage_heads.")
    for name, (scale, _) in param_groups(config.model, config.optim).items():
        rate = 0.005 if name.startswith(new) else 0.002
        assert scale * config.optim.lr == pytest.approx(rate), name

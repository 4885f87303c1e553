"""Tables of relative positions are resized as PyTorch's bicubic interpolation does it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from transfg_core.params.bias_tables import resize_bias_table


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (2, 7), (3, 4), (7, 8), (8, 3)])
def test_as_the_official_program_resizes_them(old, new):
    side, target = 2 * old - 1, 2 * new - 1
    table = np.random.default_rng(old).normal(size=(side * side, 3))
    image = torch.from_numpy(table).T.reshape(1, 3, side, side)
    resized = F.interpolate(image, size=(target, target), mode="bicubic", align_corners=False)
    expected = resized.reshape(3, -1).T.numpy()
    assert np.abs(resize_bias_table(table, target * target) - expected).max() < 1e-12

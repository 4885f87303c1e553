"""The Triton kernels in Triton's interpreter, against the plain formula in float64.

    pip install --no-deps triton       # PyTorch for the CPU comes without it

The interpreter has no bfloat16. The tests marked gpu in tests/backend run the kernels on a device.
"""

import os
import subprocess
import sys

import pytest
from running import ROOT

pytest.importorskip("triton", reason="triton not installed; this file's docstring says how")

CODE = """
import torch
from transfg_torch.attention import propagate
from transfg_torch.ops.row_kernel import fits, propagate_row

torch.manual_seed(0)
for images, tokens, heads, width, dtype in (
    (2, 150, 3, 16, torch.float32),
    (1, 64, 2, 32, torch.float32),
    (2, 101, 2, 64, torch.float16),
):
    q, k = (2 * torch.randn(images, tokens, heads * width).to(dtype) for _ in "qk")
    row = torch.randn(images, heads, tokens).softmax(-1)
    assert fits(dtype, width) and not fits(torch.float64, width)
    expected = propagate(row.double(), q.double(), k.double(), heads)
    error = (propagate_row(row, q, k) - expected).norm() / expected.norm()
    assert error < 1e-6, (dtype, error)
assert not fits(torch.float32, 24)
"""


def test_kernels_against_the_formula():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr

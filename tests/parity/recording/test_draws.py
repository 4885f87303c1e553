"""The numbers of inputs."""

import numpy as np

from parity.recording.draw import draw_inputs, normal


def test_inputs_have_the_same_numbers_in_every_precision():
    """A float64 array is rounded once, and not in the float32 recordings alone."""
    x = np.array([1 / 3, 2 / 3])
    arrays = draw_inputs({"x": x, "z": x + 1j, "n": np.arange(2), "drawn": normal(2)}, 0)
    kinds = {name: array.dtype.str[1:] for name, array in arrays.items()}
    assert kinds == {"x": "f4", "z": "c8", "n": "i8", "drawn": "f4"}
    np.testing.assert_array_equal(arrays["x"], x.astype(np.float32))

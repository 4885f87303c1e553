"""A trained model without a framework, with the backend of `tests/core/magenta.py`."""

import pytest
from magenta import make_predictor


@pytest.fixture
def predictor():
    """A call makes a predictor from settings."""
    return make_predictor

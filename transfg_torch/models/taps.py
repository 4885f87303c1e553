"""Taps: how a model shows what it computes. Twin: `transfg_jt/models/taps.py`."""

from collections.abc import Callable

from torch import Tensor

Tap = Callable[[str, Tensor], Tensor]


def no_tap(name: str, value: Tensor) -> Tensor:
    """The default tap: records nothing."""
    return value


def under(tap: Tap, prefix: str) -> Tap:
    """The tap for values inside a module: `query` becomes `prefix.query`."""
    return tap if tap is no_tap else lambda name, value: tap(f"{prefix}.{name}", value)

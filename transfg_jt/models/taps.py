"""Taps: how a model shows what it computes. Twin: `transfg_torch/models/taps.py`."""

from collections.abc import Callable

from jittor import Var

Tap = Callable[[str, Var], Var]


def no_tap(name: str, value: Var) -> Var:
    """The default tap: records nothing."""
    return value


def under(tap: Tap, prefix: str) -> Tap:
    """The tap for values inside a module: `query` becomes `prefix.query`."""
    return tap if tap is no_tap else lambda name, value: tap(f"{prefix}.{name}", value)

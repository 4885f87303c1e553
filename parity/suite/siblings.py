"""Gradients that are zero by structure, of every architecture: pattern -> `OLD>NEW`."""

from transfg_core.models.layout import ARCHITECTURES

SIBLINGS = {
    pattern: sibling
    for known in ARCHITECTURES.values()
    for pattern, sibling in known.ZERO_GRADIENTS.items()
}

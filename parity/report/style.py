"""Colours and the style of all figures, and the import of the page's packages."""

import importlib
import math
from typing import Any

from parity.errors import ParityError

PACKAGES = ("jinja2", "matplotlib")  # of the page; without the second, it has no figures
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Colours that differ under every common colour blindness (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE: dict[str, Any] = {
    "svg.hashsalt": "transfg",  # without this, the ids differ in every picture
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.parse_math": False,  # names of taps and cases may contain dollar signs
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "text.color": "#222222",
    "legend.frameon": False,
}


def power_of_ten(value: float, _: int = 0) -> str:
    """A power of ten in Unicode characters, because formulas are switched off."""
    return "10" + f"{math.log10(value):.0f}".translate(SUPERSCRIPT)


def load_optional(name: str) -> Any:
    """Import a package that only the page needs.

    Raises:
        ParityError: the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ParityError(
            f"the page needs {package}, which cannot be imported ({error}); "
            f"run: python -m pip install {package}"
        ) from error

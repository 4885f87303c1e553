"""The axes along which runs are compared: a table from configuration keys to names and values.

A new comparison is a new row of AXES. A value is text; the empty text says that the axis does not
apply, as the margin where there is no contrastive loss.
"""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from transfg_core.backend import BACKENDS

Settings = Mapping[str, Any]  # dotted key of the configuration -> value

# model.placement -> the papers' names
METHODS = {
    "none": "ViT",
    "transfg": "TransFG",
    "extra": "TransFG, extra",
    "flatten": "TransFG, flatten",
}
FFVT = ("transfg", "maws")  # placement and selection of Wang et al. 2021 (arXiv 2107.02341)
NAMES = {"convnet": "ConvNet", "swin": "Swin"}  # model.name, of models without placement
MODULES = ("model.ea", "model.ca", "model.ffm", "model.fsm")  # of SwinFC
ABLATION = ("Swin", "Swin + EA", "Swin + CA", "Swin + EACA", "Swin + EACA + FFM", "SwinFC")
METHOD_ORDER = tuple(
    f"{name}{kind}"
    for name in (
        *("ConvNet", "ResNet-18", "ResNet-50", *ABLATION),
        *("ViT", "FFVT", *tuple(METHODS.values())[1:]),
    )
    for kind in (" k-NN", "")
)


SELECTIONS = ("random", "center", "fused", "cls_similarity", "maws")


class Axis(NamedTuple):
    """One column: its name, the keys that it stands for, and its value in a configuration."""

    name: str
    keys: tuple[str, ...]
    value: Callable[[Settings], str]
    order: tuple[str, ...] = ()  # of the values in tables; others follow, numbers by size
    named: bool = False  # whether a label needs the name beside the value


def data_set(settings: Settings) -> str:
    """The reader, and the folder where it has another name: `cub (cub50)`."""
    name, folder = str(settings["data.name"]), PurePath(str(settings["data.root"])).name
    return name if folder.lower() in (name, "") else f"{name} ({folder})"


def method(settings: Settings) -> str:
    """The model as the papers name it; `k-NN` follows where its neighbours classify."""
    name = str(settings["model.name"])
    placement = settings.get("model.placement")
    if name == "resnet":
        model = f"ResNet-{settings['model.depth']}"
    elif name == "swinfc":
        model = swinfc_modules(settings)
    elif name != "vit":
        model = NAMES.get(name, name)
    elif (placement, settings.get("model.selection")) == FFVT:
        model = "FFVT"
    else:
        model = METHODS.get(str(placement), f"ViT, {placement}")
    if settings.get("model.stem", "none") != "none":
        model = f"{model}, stem {settings['model.stem']}"
    return f"{model} k-NN" if "knn.k" in settings else model


def swinfc_modules(settings: Settings) -> str:
    """SwinFC with all of its modules, else the backbone and those that are switched on."""
    ea, ca, ffm, fsm = (bool(settings[key]) for key in MODULES)
    if ea and ca and ffm and fsm:
        return "SwinFC"
    attention = "EA" * ea + "CA" * ca
    modules = ("Swin", attention, "FFM" * ffm, "FSM" * fsm)
    return " + ".join(module for module in modules if module)


def patch_split(settings: Settings) -> str:
    """Whether patches overlap: the papers call this the split."""
    plain = settings.get("model.stem", "none") == "none"  # a hybrid's patches are of another map
    if not (plain and {"model.stride", "model.patch"} <= settings.keys()):
        return ""  # only a Vision Transformer has both
    overlaps = settings["model.stride"] < settings["model.patch"]
    return "overlap" if overlaps else "non-overlap"


def contrastive(settings: Settings) -> str:
    """Whether the contrastive loss is added; weights that no run has trained have had no loss."""
    if settings.get("knn.trained") is False:
        return ""
    return "on" if settings["loss.contrastive"] else "off"


def margin(settings: Settings) -> str:
    """The margin of the contrastive loss, if it is added."""
    return f"{settings['loss.margin']:g}" if contrastive(settings) == "on" else ""


def selection(settings: Settings) -> str:
    """Which tokens part selection takes; a plain model selects none."""
    if settings.get("model.placement", "none") == "none":
        return ""
    return str(settings.get("model.selection", "fused"))


def fusion(settings: Settings) -> str:
    """How part selection joins attention maps, if it does."""
    return str(settings["model.fusion"]) if selection(settings) == "fused" else ""


AXES = (
    Axis("data set", ("data.name", "data.root"), data_set),
    Axis(
        "method",
        ("model.name", "model.placement", "model.selection", "model.stem", *MODULES),
        method,
        METHOD_ORDER,
    ),
    Axis(
        "split",
        ("model.stride", "model.patch", "model.stem"),
        patch_split,
        ("non-overlap", "overlap"),
    ),
    Axis("contrastive", ("loss.contrastive",), contrastive, ("off", "on"), named=True),
    Axis("margin", ("loss.margin",), margin, named=True),
    Axis("selection", ("model.selection",), selection, SELECTIONS, named=True),
    Axis("fusion", ("model.fusion",), fusion, ("add", "matmul", "lastlayer", "mul"), named=True),
)
BACKEND = "backend"  # the axis that is no key of the configuration
BACKEND_ORDER = tuple(BACKENDS)
COVERED = frozenset(key for axis in AXES for key in axis.keys)


def rank(value: str, order: tuple[str, ...]) -> tuple[int, float, str]:
    """Sort key of an axis's value: by `order`, then numbers by size, then text."""
    if value in order:
        return order.index(value), 0.0, value
    try:
        return len(order), float(value), value
    except ValueError:
        return len(order) + 1, 0.0, value

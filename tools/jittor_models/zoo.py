"""The models that are compared: torchvision's or timm's (PyTorch) and jittor.models'.

Sizes are the smallest at which both run: Jittor's pools refuse a map of their own size, and some
maps are then 1 x 1, where batch norm in training has two numbers only. Jittor's adaptive pools also
need a map at least as large as their output, so AlexNet and VGG need images of 224 pixels. Jittor's
convolutions in float64 are slow, so VGG gets one image. Networks of fifty layers get 96 pixels, but
for the wide one: at 64, batch norm in training has eight numbers in the last blocks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from parity import Pair, Side, normal

CLASSES = 10
FIXED = 1000  # classes of Jittor's makers that take no option
BATCH = 2


class Model(NamedTuple):
    """A model's names in both libraries, and the size of its images in pixels."""

    name: str
    size: int
    library: str = "torchvision"
    theirs: str = ""  # its name in that library, if it is another
    classes: int = CLASSES
    batch: int = BATCH
    settings: tuple[tuple[str, Any], ...] = ()  # of the PyTorch maker


MODELS = (
    Model("alexnet", 224),
    Model("vgg11", 224, batch=1),
    Model("resnet18", 64),
    Model("resnet50", 96),
    Model("resnext50_32x4d", 96),
    Model("wide_resnet50_2", 64),
    Model("squeezenet1_0", 64),
    Model("squeezenet1_1", 64),
    Model("densenet121", 64),
    Model("mobilenet_v2", 128, classes=FIXED),
    Model("mnasnet0_5", 64),
    Model("mnasnet1_0", 64),
    Model("shufflenet_v2_x0_5", 64, classes=FIXED),
    Model("shufflenet_v2_x1_0", 64, classes=FIXED),
    Model("res2net50", 96, "timm", "res2net50_26w_4s"),
    Model("googlenet", 128, settings=(("init_weights", False),)),
)
BY_NAME = {model.name: model for model in MODELS}


def pytorch_builder(model: Model) -> Callable[[], Any]:
    """A function that makes the PyTorch model."""

    def build() -> Any:
        name = model.theirs or model.name
        options = dict(model.settings) | {"num_classes": model.classes}
        if model.library == "timm":
            import timm

            return timm.create_model(name, **options)
        import torchvision

        return getattr(torchvision.models, name)(weights=None, **options)

    return build


def jittor_builder(model: Model) -> Callable[[], Any]:
    """A function that makes Jittor's model."""

    def build() -> Any:
        import jittor.models

        options = {} if model.classes == FIXED else {"num_classes": model.classes}
        return getattr(jittor.models, model.name)(**options)

    return build


def make_pair(name: str) -> Pair:
    """The pair of one model."""
    model = BY_NAME[name]
    return Pair(
        baseline=Side("torch", pytorch_builder(model)),
        candidate=Side("jittor", jittor_builder(model)),
        inputs={"x": normal(model.batch, 3, model.size, model.size)},
    )

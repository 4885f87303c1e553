"""The architectures in Jittor, one file each. Twin: `transfg_torch/models`."""

from transfg_jt.models.convnet import ConvNet
from transfg_jt.models.resnet import ResNet
from transfg_jt.models.swin import Swin
from transfg_jt.models.swinfc import SwinFC
from transfg_jt.models.vit import TransFG

MODELS = {  # by `model.name`
    "vit": TransFG,
    "convnet": ConvNet,
    "resnet": ResNet,
    "swin": Swin,
    "swinfc": SwinFC,
}

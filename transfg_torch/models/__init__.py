"""The architectures in PyTorch, one file each. Twin: `transfg_jt/models`."""

from transfg_torch.models.convnet import ConvNet
from transfg_torch.models.resnet import ResNet
from transfg_torch.models.swin import Swin
from transfg_torch.models.swinfc import SwinFC
from transfg_torch.models.vit import TransFG

MODELS = {  # by `model.name`
    "vit": TransFG,
    "convnet": ConvNet,
    "resnet": ResNet,
    "swin": Swin,
    "swinfc": SwinFC,
}

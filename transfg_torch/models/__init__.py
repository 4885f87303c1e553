"""The architectures in PyTorch, one file each. Twin: `transfg_jt/models`."""

from transfg_torch.models.convnet import ConvNet
from transfg_torch.models.vit import TransFG

MODELS = {"vit": TransFG, "convnet": ConvNet}  # by `model.name`

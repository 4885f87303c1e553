"""What a pass can change in a PyTorch model: modules' attributes, and tensors."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from parity.recording.keeping import Kept, PutBack


def keep(model: nn.Module, loaded: Collection[int]) -> Kept:
    """All of a model as it is now. `loaded`: ids of tensors whose numbers are loaded afterwards."""
    scripted = [m for m in model.modules() if isinstance(m, torch.jit.ScriptModule)]  # in C++
    modules = [(p, m) for p, m in model.named_modules() if m not in scripted]

    def save(tensor: Tensor) -> PutBack:
        return _saved(tensor, numbers=id(tensor) not in loaded)

    kept = Kept(modules, (Tensor, nn.Parameter), save, scripted)
    for tensor in [*model.parameters(), *model.buffers()]:
        kept.save(tensor)
    return kept


def _saved(tensor: Tensor, numbers: bool) -> PutBack:
    data, needs_grad = tensor.data, tensor.requires_grad
    grad = tensor.grad if tensor.is_leaf else None
    values = data.clone() if numbers else None

    def put_back() -> None:
        if tensor.dtype != data.dtype or tensor.data_ptr() != data.data_ptr():
            tensor.data = data  # the pass has given it another type, or other memory
        if values is not None and not torch.equal(data, values):
            data.copy_(values)
        if tensor.is_leaf:
            if tensor.requires_grad != needs_grad:
                tensor.requires_grad_(needs_grad)
            tensor.grad = grad

    return put_back

"""A training whose model is cut up among the processes: each keeps a part of every weight, gradient and moment.

Torch's FSDP2. A block's weights are gathered when the block runs and dropped when it has run, so that no device holds a
whole model but for the block it works on. What is written to disk is gathered tensor by tensor and is whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from alphatune.learn import ranks
from alphatune.packed.walk import blocks


def cut(model: nn.Module, device: torch.device) -> ranks.Root:
    """A `Root` of `model` whose parameters lie in parts on the processes' devices; they have joined a group already.

    Args:
        model: changed in place; its parameters may be on the CPU, block by block they go to `device`.
    """
    mesh = init_device_mesh(device.type, (ranks.size(),))
    for name in blocks(model):
        for block in model.get_submodule(name.rstrip(".")).children():
            fully_shard(block, mesh=mesh)
    root = ranks.Root(model)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)
    return root


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be in parts, as one on the CPU of the process that leads; all processes must call this.

    Of a tensor that is in parts, the other processes get an empty one.
    """
    if not isinstance(tensor, DTensor):
        return tensor.detach().cpu().contiguous()
    gathered: Tensor = tensor.full_tensor().detach()
    return gathered.cpu() if ranks.rank() == 0 else torch.empty(0)


def fill(parameter: Tensor, tensor: Tensor) -> None:
    """Copy a whole tensor, which every process has, into a parameter that may be in parts."""
    parameter.detach().copy_(_part(parameter, tensor))


def join(model: nn.Module) -> None:
    """Put whole parameters back into a model that was cut, on the leader's CPU, and empty ones elsewhere: to be saved.

    The model cannot run any more.
    """
    made: dict[int, nn.Parameter] = {}  # a tied parameter stands in several modules
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, DTensor):
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(whole(parameter), parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]


def keep_whole(optimizer: torch.optim.Optimizer) -> None:
    """Let the state that an optimiser saves and loads be whole, as that of one process."""

    def saved(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        kept = {i: {n: whole(v) if isinstance(v, DTensor) else v for n, v in values.items()}
                for i, values in state["state"].items()}  # fmt: skip
        return {**state, "state": kept}

    def loaded(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        kept = {i: {n: _part(parameters[i], v) if torch.is_tensor(v) and v.shape == parameters[i].shape else v
                    for n, v in values.items()} for i, values in state["state"].items()}  # fmt: skip
        return {**state, "state": kept}

    optimizer.register_state_dict_post_hook(saved)
    optimizer.register_load_state_dict_pre_hook(loaded)


def _part(like: Tensor, tensor: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor
    # every process has read the same file: nothing needs to be sent
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

"""How many parameters a packed model has: a packed layer counts as the weights that it stands for.

transformers and peft add up parameters, but codes are integers in buffers. Their two counts are told of packed layers;
those of all other models stay as they are.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from alphatune.packed.linear import packed_layers

_TOLD = "counts_packed_layers"  # set on what is in the place of the libraries' own


def packed_weights(model: nn.Module) -> int:
    """The weights that the packed layers of a model stand for; biases are parameters and not among them."""
    return sum(layer.in_features * layer.out_features for layer in packed_layers(model).values())


def register() -> None:
    """Tell `num_parameters` of transformers and `print_trainable_parameters` of peft; doing it again changes nothing.

    Packed weights are frozen, so they count among all parameters and never among the trainable ones.
    """
    of_model, of_adapter = PreTrainedModel.num_parameters, PeftModel.get_nb_trainable_parameters

    @wraps(of_model)
    def num_parameters(self: Any, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        found = of_model(self, only_trainable, exclude_embeddings)
        return found if only_trainable else found + packed_weights(self)

    @wraps(of_adapter)
    def get_nb_trainable_parameters(self: Any) -> tuple[int, int]:
        trainable, everything = of_adapter(self)
        return trainable, everything + packed_weights(self)

    if not hasattr(of_model, _TOLD):
        setattr(num_parameters, _TOLD, True)
        PreTrainedModel.num_parameters = num_parameters  # type: ignore[method-assign]
    if not hasattr(of_adapter, _TOLD):
        setattr(get_nb_trainable_parameters, _TOLD, True)
        PeftModel.get_nb_trainable_parameters = get_nb_trainable_parameters  # type: ignore[method-assign]

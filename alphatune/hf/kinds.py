"""What kind of model a checkpoint holds, by the class that its config.json names."""

from __future__ import annotations

from typing import Any

from transformers.models.auto import modeling_auto as auto

CAUSAL = "causal language model"
_KINDS: dict[str, dict[str, Any]] = {  # kind -> the classes that transformers lists for it, by type of model
    CAUSAL: dict(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "classifier": dict(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    "masked language model": dict(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    "encoder-decoder": dict(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "token classifier": dict(auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES),
    "question-answering model": dict(auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES),
}


def kind_of(config: dict[str, Any]) -> str | None:
    """The kind of model in a folder with this config.json; None of one without a head, or that is not known."""
    name = architecture(config)
    return next((kind for kind, classes in _KINDS.items() if name in classes.values()), None)


def architecture(config: dict[str, Any]) -> str | None:
    """The class that a checkpoint was saved from."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    return name if isinstance(name, str) else None

"""Which models may teach which, and what a teacher is shown: what the student saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_DEFAULT_NAME = "LABEL_"  # transformers' names of classes that nobody named


def check_teacher(teacher: nn.Module, student: nn.Module) -> None:
    """Raise ValueError for a teacher whose outputs mean something else: other classes, their order, a vocabulary.

    What configs do not say is found at the first batch, by the shapes.
    """
    mine, other = getattr(student, "config", None), getattr(teacher, "config", None)
    if mine is None or other is None:
        return
    vocabularies = [_vocabulary(model) for model in (student, teacher)]
    if None not in vocabularies:
        if vocabularies[0] != vocabularies[1]:
            raise ValueError(
                f"the teacher's vocabulary has {vocabularies[1]} tokens, the model's {vocabularies[0]}: a teacher must "
                "have the same tokenizer"
            )
    elif _classifies(student) and _classifies(teacher):
        _check_labels(mine, other)
    if _encodes_and_decodes(student) and not hasattr(student, "prepare_decoder_input_ids_from_labels"):
        for name in ("decoder_start_token_id", "pad_token_id"):  # each makes its decoder's inputs itself
            if getattr(mine, name, None) != getattr(other, name, None):
                raise ValueError(
                    f"the teacher's {name} is {getattr(other, name, None)}, the model's {getattr(mine, name, None)}: "
                    "its decoder would see other tokens. Set it in the teacher's config if they mean the same, or let "
                    "the data collator make decoder_input_ids"
                )


def _encodes_and_decodes(model: Any) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _vocabulary(model: Any) -> int | None:
    """Outputs of a model's language head, None if it has none."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(head, "weight", None)
    return None if weight is None else int(weight.shape[0])


def _classifies(model: nn.Module) -> bool:
    """Whether a layer has one output for each label of the config."""
    config: Any = model.config
    count = getattr(config, "num_labels", None)
    sizes = ((getattr(m, "out_features", None), getattr(m, "out_channels", None)) for m in model.modules())
    return count is not None and any(count in pair for pair in sizes)


def _check_labels(mine: Any, other: Any) -> None:
    names, theirs = (_names(config) for config in (mine, other))
    if len(names) != len(theirs):
        raise ValueError(
            f"the teacher has {len(theirs)} classes ({_listed(theirs)}), the model {len(names)} ({_listed(names)}): a "
            "teacher must have the same outputs"
        )
    if names == theirs or any(name.startswith(_DEFAULT_NAME) for name in (*names, *theirs)):
        return
    what = "orders its classes" if sorted(names) == sorted(theirs) else "has the classes"
    raise ValueError(
        f"the teacher {what} {_listed(theirs)}, the model {_listed(names)}: its logits would be taken for those of "
        "other classes. Fine-tune it with the model's order, or set config.id2label if they mean the same"
    )


def _names(config: Any) -> list[str]:
    return [str(name) for _, name in sorted(config.id2label.items())]


def _listed(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def teacher_inputs(inputs: Mapping[str, Any], student: Any) -> dict[str, Any]:
    """What to call a teacher with: the student's ``inputs`` without labels.

    A sequence-to-sequence student makes its decoder's inputs of the labels; so the teacher gets those the student
    makes, or the labels, where the student keeps to itself how it does that.
    """
    labels = inputs.get("labels")
    seen = {name: value for name, value in inputs.items() if name != "labels"}
    given = "decoder_input_ids" in seen or "decoder_inputs_embeds" in seen
    if given or not isinstance(labels, Tensor) or not _encodes_and_decodes(student):
        return seen
    prepare = getattr(student, "prepare_decoder_input_ids_from_labels", None)
    return {**seen, "labels": labels} if prepare is None else {**seen, "decoder_input_ids": prepare(labels)}

"""Distillation of hidden states: what every layer of a model says, beside what the model says in the end.

For the layers l of the student and π(l) of the teacher that are compared,

    H = mean over l of mean over rows of ‖t_π(l) − s_l‖² / ‖t_π(l)‖²      (sums over real positions and channels)

which is 0 for equals and about 1 for a student that says nothing. Pruning leaves the residual stream as wide as it was,
so that no projection is needed (Kurtić et al. 2023 do the same; Xia et al. 2022 learn one).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bpc.train.distill import relative_error
from bpc.train.share import IGNORED_LABEL

REQUEST = "output_hidden_states"  # what models of transformers are asked with
_KINDS = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
States = Mapping[str, Sequence[Tensor]]


def check_gives_hidden_states(model: nn.Module, whose: str) -> None:
    """Raise ValueError for a model whose forward cannot be asked for hidden states."""
    parameters = inspect.signature(model.forward).parameters
    if REQUEST not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise ValueError(_refusal(f"the forward of the {whose} ({type(model).__name__}) takes no {REQUEST}="))


def hidden_states_of(outputs: Any, whose: str) -> dict[str, tuple[Tensor, ...]]:
    """The states after each layer, by stack (``hidden_states``; of the encoder and the decoder), embeddings first.

    Raises ValueError for outputs without any.
    """
    items = outputs if isinstance(outputs, Mapping) else {}
    found = {kind: tuple(items[kind]) for kind in _KINDS if isinstance(items.get(kind), (tuple, list))}
    if not any(len(states) > 1 for states in found.values()):
        raise ValueError(_refusal(f"what the {whose} returned ({type(outputs).__name__}) holds none"))
    return found


def _refusal(why: str) -> str:
    return (
        f"distillation.hidden compares hidden states, and {why}: give a model of transformers that returns them, or "
        "set it to 0"
    )


def matched(student: int, teacher: int) -> list[tuple[int, int]]:
    """Which layers are compared, counted from 1: of as many layers each with its own, else evenly spread to the last.

    >>> matched(3, 6)
    [(1, 2), (2, 4), (3, 6)]
    """
    pairs = min(student, teacher)
    return [(round(i * student / pairs), round(i * teacher / pairs)) for i in range(1, pairs + 1)]


def hidden_error(student: States, teacher: States, inputs: Mapping[str, Any]) -> Tensor:
    """H over all stacks: a scalar.

    A layer of the student that gives back what it was given has nothing left in it, and is not compared. Embeddings
    are not either: no layer has worked on them.

    Args:
        student, teacher: from `hidden_states_of`.
        inputs: the batch, whose masks tell padding from real positions.

    Raises ValueError for a teacher with other stacks or of another width.
    """
    if student.keys() != teacher.keys():
        raise ValueError(
            f"the teacher has {', '.join(teacher)}, the model {', '.join(student)}: a teacher of hidden states must be "
            "built of the same stacks"
        )
    errors = []
    for kind, mine in student.items():
        known, mask = teacher[kind], _mask(kind, inputs)
        for layer, other in matched(len(mine) - 1, len(known) - 1):
            _check_widths(mine[layer], known[other])
            if not _idle(mine[layer - 1], mine[layer]):
                errors.append(relative_error(mine[layer], known[other], mask))
    return torch.stack(errors).mean() if errors else next(iter(student.values()))[0].new_zeros(())


def _idle(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and torch.equal(before, after)


def _check_widths(mine: Tensor, known: Tensor) -> None:
    if mine.shape != known.shape:
        raise ValueError(
            f"a layer's states have shape {tuple(mine.shape)} in the model and {tuple(known.shape)} in the teacher: "
            "distillation.hidden needs a teacher of the same width, which the model's own dense form has. One of "
            "another width can teach logits: set distillation.hidden to 0"
        )


def _mask(kind: str, inputs: Mapping[str, Any]) -> Tensor | None:
    """(rows, length) of the stack's real positions, where the batch says which these are."""
    if kind != "decoder_hidden_states":
        return _tensor(inputs.get("attention_mask"))
    mask, labels = _tensor(inputs.get("decoder_attention_mask")), _tensor(inputs.get("labels"))
    return mask if mask is not None or labels is None else labels != IGNORED_LABEL


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None

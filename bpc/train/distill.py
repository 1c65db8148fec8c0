"""Distillation of a teacher's outputs (method.md; paper section 5, Table 7).

loss = (1 − w)·task loss + w·D(teacher, student), where D follows from what the outputs are:

- logits of classes: T²·KL(softmax(teacher/T) ‖ softmax(student/T));
- logits of independent labels: T²·mean over labels of KL between Bernoulli variables of logit/T;
- numbers (regression): their mean squared difference, the task's own loss;
- embeddings or hidden states, where a model has no logits: ‖teacher − student‖² / ‖teacher‖² of every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bpc.train.share import counted


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 2.0,
    labels: Tensor | None = None,
    *,
    problem_type: str | None = None,
    shifted: bool = False,
) -> Tensor:
    """How far the student's logits are from the teacher's, averaged over all positions: a scalar.

    Args:
        student, teacher: logits of one shape (…, classes). Computed in float32 whatever dtype they come in.
        temperature: T; the factor T² keeps gradients comparable across temperatures. Regression has none.
        labels: if their shape is that of the logits without the classes, positions labelled -100 do not count.
        problem_type: as in a config of transformers: "regression", "multi_label_classification"; else one of the
            classes is right. One single output is a regression.
        shifted: labels belong to the next position, as in causal language models.

    Raises ValueError for logits of other shapes.
    """
    _check_shapes(student, teacher)
    student, teacher = student.float(), teacher.float()
    if problem_type == "regression" or student.shape[-1] == 1:
        return F.mse_loss(student, teacher)
    if problem_type == "multi_label_classification":
        return temperature**2 * _bernoulli_divergence(student / temperature, teacher / temperature).mean()
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(-1)
    if labels is not None and labels.shape == divergence.shape:
        kept = counted(labels, shifted)
        return temperature**2 * (divergence * kept).sum() / kept.sum().clamp(min=1)
    return temperature**2 * divergence.mean()


def _bernoulli_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of every label on its own, from logits."""
    p = torch.sigmoid(teacher)
    on = F.logsigmoid(teacher) - F.logsigmoid(student)
    off = F.logsigmoid(-teacher) - F.logsigmoid(-student)
    return p * on + (1 - p) * off


def relative_error(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over rows of ‖teacher − student‖² / ‖teacher‖²: 0 for equals, 2 − 2·cosine for vectors of one length.

    Args:
        student, teacher: embeddings (batch, dims) or hidden states (batch, length, dims).
        mask: (batch, length), 0 where a position is padding.
    """
    _check_shapes(student, teacher)
    student, teacher = student.float(), teacher.float()
    if mask is not None and mask.shape == student.shape[:-1]:
        real = (mask != 0).unsqueeze(-1)
        student, teacher = student * real, teacher * real
    difference, scale = ((x**2).flatten(1).sum(1) for x in (teacher - student, teacher))
    return (difference / scale.clamp(min=torch.finfo(scale.dtype).tiny)).mean()


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"the teacher's outputs have shape {tuple(teacher.shape)}, the student's {tuple(student.shape)}: "
            "a teacher must have the same outputs (classes, vocabulary, dims) as the model that is pruned."
        )


def logits_of(outputs: Any) -> dict[str, Tensor]:
    """What can be distilled in a transformers output, by name.

    Every ``…logits`` tensor (``logits``; ``start_logits`` and ``end_logits``; …); else every embedding
    (``text_embeds``, ``image_embeds``, …); else ``last_hidden_state``. Raises ``ValueError`` if there is none of them.
    """
    items = outputs.items() if isinstance(outputs, Mapping) else ()
    tensors = {name: value for name, value in items if isinstance(value, Tensor)}
    for kind in (is_logits, lambda name: "embed" in name, lambda name: name == "last_hidden_state"):
        if found := {name: value for name, value in tensors.items() if kind(name)}:
            return found
    raise ValueError(
        f"{type(outputs).__name__} holds no logits, embeddings or last_hidden_state to distil: give a model that "
        "returns a transformers ModelOutput (return_dict=True), or no teacher."
    )


def is_logits(name: str) -> bool:
    """Whether an output of that name holds logits."""
    return name.endswith("logits")


def divergence(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    inputs: Mapping[str, Any],
    *,
    temperature: float,
    problem_type: str | None = None,
    shifted: bool = False,
) -> Tensor:
    """Mean of the losses of all outputs that the teacher has: `distillation_loss` of logits, else `relative_error`.

    Args:
        student, teacher: from `logits_of`.
        inputs: the batch: its labels and its mask say which positions count.
    """
    if missing := sorted(teacher.keys() - student.keys()):
        raise ValueError(
            f"the teacher returns {missing[0]}, the model that is pruned {', '.join(student)}: a teacher must have the "
            "same outputs"
        )
    mask = inputs.get("decoder_attention_mask" if "decoder_input_ids" in inputs else "attention_mask")
    if "start_positions" in inputs and isinstance(
        mask, Tensor
    ):  # logits that choose a position, of which none is padding
        padding = mask == 0
        student, teacher = ({n: _without(v, padding) for n, v in side.items()} for side in (student, teacher))
    losses = [
        distillation_loss(
            student[name], known, temperature, inputs.get("labels"), problem_type=problem_type, shifted=shifted
        )
        if is_logits(name)
        else relative_error(student[name], known, mask)
        for name, known in teacher.items()
    ]
    return torch.stack(losses).mean()


def _without(logits: Tensor, padding: Tensor) -> Tensor:
    """Logits over positions (rows, length), so low at padding that it is never chosen; others as they are."""
    return logits.masked_fill(padding, -1e4) if logits.shape == padding.shape else logits

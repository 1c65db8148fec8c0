"""Distillation of a teacher's logits (method.md; paper section 5, Table 7).

loss = (1 − w)·task loss + w·T²·KL(softmax(teacher/T) ‖ softmax(student/T))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED_LABEL = -100  # transformers' label of positions that carry no loss


def distillation_loss(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, labels: Tensor | None = None
) -> Tensor:
    """T²·KL(teacher ‖ student), averaged over all positions.

    Args:
        student, teacher: logits of one shape (…, classes). Computed in float32 whatever dtype they come in.
        temperature: T; the factor T² keeps gradients comparable across temperatures.
        labels: if their shape is that of the logits without the classes, positions labelled -100 do not count.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"the teacher's logits have shape {tuple(teacher.shape)}, the student's {tuple(student.shape)}: "
            "a teacher must have the same outputs (classes, vocabulary) as the model that is pruned."
        )
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(-1)
    if labels is not None and labels.shape == divergence.shape:
        counted = labels != IGNORED_LABEL
        return temperature**2 * (divergence * counted).sum() / counted.sum().clamp(min=1)
    return temperature**2 * divergence.mean()


def logits_of(outputs: Any) -> dict[str, Tensor]:
    """Every ``…logits`` tensor of a transformers output (``logits``; ``start_logits`` and ``end_logits``; …).

    Raises ``ValueError`` if there is none.
    """
    items = outputs.items() if isinstance(outputs, Mapping) else ()
    found = {name: value for name, value in items if name.endswith("logits") and isinstance(value, Tensor)}
    if not found:
        raise ValueError(
            f"{type(outputs).__name__} holds no logits to distil: give a model that returns a transformers "
            "ModelOutput with logits (return_dict=True), or no teacher."
        )
    return found


@torch.no_grad()
def teacher_logits(
    teacher: nn.Module, batches: Iterable[Mapping[str, Tensor]], device: torch.device | str | None = None
) -> Tensor:
    """The teacher's logits for every row of ``batches``, concatenated: (rows, classes), float32 on the CPU.

    A teacher does not change: a data set that is read several times is cheaper with the column ``teacher_logits``,
    which `Trainer` takes instead of asking the teacher.
    """
    teacher.eval()
    rows = []
    for batch in batches:
        inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
        rows.append(teacher(**inputs).logits.float().cpu())
    return torch.cat(rows)

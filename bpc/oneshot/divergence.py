"""How far a model's outputs are from the original's, in one number per batch: no labels are needed.

Scores of classes ("…logits") count by KL(original ‖ small) in nats per row; a single score, and outputs that are no
scores (embeddings, features), by their squared error over the original's variance. Padding does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bpc.oneshot.batches import Batch, examples_of, valid_rows
from bpc.oneshot.stream import Runner

_ENTRIES = 2**18  # of logits looked at at a time: they stay in the processor's cache, which is 3 times as fast


@torch.no_grad()
def divergence(original: Any, small: Any, batch: Batch, *, multi_label: bool = False) -> float:
    """Mean over the outputs of both (dataclasses, mappings or tuples of tensors) of their divergence.

    ``multi_label``: the scores are of independent labels, each with a probability of its own.
    """
    found = []
    for (name, wanted), (_, given) in zip(outputs(original), outputs(small), strict=True):
        wanted, given = wanted.float(), given.float()
        if name.endswith("logits") and wanted.shape[-1] > 1:
            rows = valid_rows(batch, wanted)
            kl = _independent(wanted, given) if multi_label else _categorical(wanted, given)
            found.append(float((kl if rows is None else kl[rows]).mean()))
        else:
            rows = valid_rows(batch, wanted) if wanted.dim() > 1 else None
            if rows is not None:
                wanted, given = wanted[rows], given[rows]
            scale = float((wanted - wanted.mean()).square().mean()) or 1.0
            found.append(float((wanted - given).square().mean()) / scale)
    return sum(found) / max(len(found), 1)


def mean_divergence(original: Runner, small: Runner, batches: Sequence[Batch], multi_label: bool = False) -> float:
    """The `divergence` of two graphs over ``batches``, weighted by their examples."""
    total = 0.0
    for batch in batches:
        wanted, given = (runner.outputs(runner.start(batch)) for runner in (original, small))
        total += examples_of(batch) * divergence(wanted, given, batch, multi_label=multi_label)
    return total / max(1, sum(examples_of(batch) for batch in batches))


def outputs(result: Any) -> Iterator[tuple[str, Tensor]]:
    """The floating tensors that a model returns first-hand, by name; where there are logits, only those."""
    if isinstance(result, Tensor):
        pairs: list[tuple[str, Any]] = [("output", result)]
    elif isinstance(result, Mapping):
        pairs = [(str(k), v) for k, v in result.items()]
    else:
        pairs = [(f"output {i}", v) for i, v in enumerate(result)]
    tensors = [(k, v) for k, v in pairs if isinstance(v, Tensor) and v.is_floating_point() and v.numel()]
    scores = [(k, v) for k, v in tensors if k.endswith("logits")]
    yield from scores or tensors


def _categorical(wanted: Tensor, given: Tensor) -> Tensor:
    """KL of each row of class scores; rows are taken a few at a time, as vocabularies are long."""
    classes = wanted.shape[-1]
    rows = max(1, _ENTRIES // classes)
    pieces = zip(wanted.reshape(-1, classes).split(rows), given.reshape(-1, classes).split(rows), strict=True)
    found = []
    for original, small in pieces:
        p, q = original.log_softmax(-1, torch.float64), small.log_softmax(-1, torch.float64)
        terms = nn.functional.kl_div(q, p, log_target=True, reduction="none")
        found.append(terms.masked_fill_(p.isneginf(), 0.0).sum(-1))  # a class that cannot be counts nothing
    return torch.cat(found).reshape(wanted.shape[:-1])


def _independent(wanted: Tensor, given: Tensor) -> Tensor:
    p = wanted.sigmoid()
    positive = torch.nn.functional.logsigmoid(wanted) - torch.nn.functional.logsigmoid(given)
    negative = torch.nn.functional.logsigmoid(-wanted) - torch.nn.functional.logsigmoid(-given)
    return (p * positive + (1 - p) * negative).sum(-1)

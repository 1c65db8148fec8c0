"""Does the model with fewer tokens compute what the full one does?"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bpc.verify.runs import Inputs, Unusable, outputs_of
from bpc.vocabulary.errors import VocabularyError
from passes.verify.errors import VerificationError

_TOKENS = ("input_ids", "decoder_input_ids")
# Of the largest value of an output: a product with fewer columns may be summed in another order.
_SUMS, _STORED = 64 * torch.finfo(torch.float32).eps, 4


def compare_models(
    full: nn.Module,
    small: nn.Module,
    new: Mapping[int, int],
    texts: Sequence[Mapping[str, Any]],
    example: Mapping[str, Any],
    pad: int | None,
) -> float:
    """The largest difference of all outputs, where logits are compared at the kept tokens.

    ``texts``: unpadded encodings (dicts of lists) for the full model; ``new``: {id: new id} of its kept rows;
    ``example``: inputs for two texts, of which images and the like are taken; ``pad``: the padding id, or None for
    texts one by one. Raises `VerificationError` for differences that rounding does not
    explain, and `VocabularyError` where the full model does not run on texts.
    """
    training = full.training, small.training
    full.eval(), small.eval()
    others = {name: value for name, value in example.items() if name not in (*texts[0], *_TOKENS)}
    accepted = inspect.signature(full.forward).parameters
    order = torch.tensor(list(new))
    worst = 0.0
    each = 2 if pad is not None else 1
    try:
        for first in range(0, len(texts), each):
            inputs = _batch(texts[first : first + each], accepted, others, pad or 0)
            inputs = {k: v.to(_device(full)) if isinstance(v, Tensor) else v for k, v in inputs.items()}
            name = f"text {first + 1} of the sample"
            mapped = renumbered(inputs, new)
            before = outputs_of(full, Inputs(name, (), inputs), fault=_Unfit)
            after = outputs_of(small, Inputs(name, (), mapped), fault=VerificationError)
            for old, value in zip(before, after, strict=True):
                worst = max(worst, _difference(old, value, order, name))
    except Unusable as error:
        raise VocabularyError(f"nothing can be compared, so nothing is reduced: {error}") from error
    finally:
        full.train(training[0]), small.train(training[1])
    return worst


def renumbered(inputs: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """Inputs of the full model, by name, for the one whose ids are ``new``, {id: new id}; dropped ids become 0."""
    table = torch.zeros(max(new) + 1, dtype=torch.long)
    table[torch.tensor(list(new))] = torch.tensor(list(new.values()))

    def changed(ids: Tensor) -> Tensor:
        known = torch.where(ids < len(table), ids, 0)
        return torch.where(ids < len(table), table.to(ids.device)[known], 0).to(ids.dtype)

    return {name: changed(value) if name in _TOKENS else value for name, value in inputs.items()}


class _Unfit(Unusable):
    """The full model does not run."""


def _batch(texts: Sequence[Mapping[str, Any]], accepted: Any, others: Mapping[str, Any], pad: int) -> dict[str, Any]:
    length = max(len(text["input_ids"]) for text in texts)

    def padded(name: str, filler: int) -> Tensor:
        return torch.tensor([[*text[name], *[filler] * (length - len(text[name]))] for text in texts])

    found = {name: padded(name, pad if name == "input_ids" else 0) for name in texts[0]}
    if "decoder_input_ids" in accepted:
        found["decoder_input_ids"] = found["input_ids"]
    rest = {name: value[: len(texts)] if isinstance(value, Tensor) else value for name, value in others.items()}
    found = {name: value for name, value in (rest | found).items() if name in accepted}
    if not any(name in found for name in _TOKENS):
        raise Unusable("the model's forward takes neither input_ids nor decoder_input_ids")
    if "input_ids" not in found:
        found.pop("attention_mask", None)  # that of the text, and the model's first input is none
    return found


def _difference(old: Tensor, new: Tensor, order: Tensor, name: str) -> float:
    for dim in range(min(old.dim(), new.dim())):
        if old.shape[dim] != new.shape[dim] == len(order):
            old = old.index_select(dim, order.to(old.device))
    if old.shape != new.shape:
        raise VerificationError(f"{name}: an output is {tuple(new.shape)}, of the full model {tuple(old.shape)}")
    if not old.numel():
        return 0.0
    worst = float((old.double() - new.double()).abs().max())
    allowed = max(_SUMS, _STORED * torch.finfo(old.dtype).eps) * float(old.abs().max())
    if not worst <= allowed:
        raise VerificationError(
            f"{name}: outputs of the model with fewer tokens are {worst:.2g} off, where rounding explains "
            f"{allowed:.2g}: something else in the model depends on token ids. Nothing was reduced"
        )
    return worst


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device

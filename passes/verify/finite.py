"""Refusal of models in which a masked weight meets an infinity (0 · ∞ is NaN; docs/exactness.md)."""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.graph import get_attribute
from passes.ops.linear_form import linear_form
from passes.verify.errors import NotFiniteError
from passes.verify.run import Run


def check_linear_input(node: fx.Node, run: Run) -> None:
    """Raise `NotFiniteError`, naming the value, if a masked (zero) weight of ``node`` meets inf or NaN in ``run``."""
    form = linear_form(node)
    if form is None:
        return
    value = run.env[form.input]
    if bool(torch.isfinite(value).all()):
        return
    masked = (form.rows(get_attribute(run.module, form.weight_name)) == 0).any(0)
    channels = ~torch.isfinite(value).flatten(0, -2).all(0) & masked
    if bool(channels.any()):
        which = channels.nonzero().flatten()[:8].tolist()
        raise NotFiniteError(
            f"{form.input.name} is not finite on the example inputs in channels {which}, and {form.weight_name} has "
            "zeros there: 0 · inf is NaN in the masked model and absent in the small one, so they cannot agree. "
            "Keep those weights, or keep the value finite."
        )

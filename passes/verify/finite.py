"""Refusal of models in which a masked weight meets an infinity (exactness trap 11)."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.ir.graph import get_attribute
from passes.ir.info import trace_info
from passes.ops.linear_form import LinearForm, linear_form
from passes.verify.errors import NotFiniteError
from passes.verify.run import same_random_numbers

aten = torch.ops.aten


def refuse_non_finite(graph_module: fx.GraphModule) -> None:
    """Raise ValueError, naming the value, if on the example inputs a masked (zero) weight meets inf or NaN."""

    class Checker(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            form = linear_form(n)
            if form is not None:
                _check_finite(graph_module, form, self.env[form.input])
            return super().run_node(n)

    info = trace_info(graph_module)
    with same_random_numbers(), torch.no_grad():
        Checker(graph_module).run(*pytree.tree_leaves((info.args, info.kwargs)), enable_io_processing=False)


def _check_finite(graph_module: fx.GraphModule, form: LinearForm, value: torch.Tensor) -> None:
    if bool(torch.isfinite(value).all()):
        return
    masked = (form.rows(get_attribute(graph_module, form.weight_name)) == 0).any(0)
    channels = ~torch.isfinite(value).flatten(0, -2).all(0) & masked
    if bool(channels.any()):
        which = channels.nonzero().flatten()[:8].tolist()
        raise NotFiniteError(
            f"{form.input.name} is not finite on the example inputs in channels {which}, and {form.weight_name} has "
            "zeros there: 0 · inf is NaN in the masked model and absent in the small one, so they cannot agree. "
            "Keep those weights, or keep the value finite."
        )

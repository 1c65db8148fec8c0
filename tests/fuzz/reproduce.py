"""The script that fails: a failing case as text that needs torch and passes alone."""

from __future__ import annotations

import torch

import passes
from tests.fuzz.forms import Case, Masks, example_of, given_model, readable
from tests.fuzz.program import build

HEAD = """\
import torch, passes
from torch import nn
from torch.nn import functional as F

"""


def mask_text(mask: torch.Tensor) -> str:
    """Rows and columns that go, where that says all; the entries otherwise."""
    shape = tuple(mask.shape)
    if mask.dim() >= 2:
        rows, columns = mask.flatten(1).any(1), mask.transpose(0, 1).flatten(1).any(1)
        whole = rows.view(-1, 1) & columns.view(1, -1)
        if torch.equal(whole.view(*shape[:2], *[1] * (mask.dim() - 2)).expand(shape), mask):
            gone = [(~kept).nonzero().flatten().tolist() for kept in (rows, columns)]
            return f"gone({shape}, {gone[0]}, {gone[1]})"
    return f"torch.tensor({mask.int().tolist()}).bool()"


def script(case: Case) -> str:
    """A self-contained script that prints the difference between the masked eager model and the small graph."""
    masks = [f"    {name!r}: {mask_text(mask)}," for name, mask in _used(case).items()]
    shrink = "passes.shrink(graph, verify=False)" if case.zeros else "passes.shrink(graph, masks, verify=False)"
    lines = [
        HEAD + case.program.text(),
        "",
        "def gone(shape, rows, columns):",
        "    mask = torch.ones(shape, dtype=torch.bool)",
        "    mask[rows] = False",
        "    mask[:, columns] = False",
        "    return mask",
        "",
        "torch.manual_seed(0)",
        "model = Model().double().eval()",
        "masks = {",
        *masks,
        "}",
        "x = (torch.randn(3, 5, 6).double(), torch.randint(0, 11, (3, 5)), torch.ones(3, 5, dtype=torch.bool))",
        "eager = __import__('copy').deepcopy(model)",
        "for name, mask in masks.items():",
        "    eager.get_parameter(name).data *= mask",
        f"graph = passes.trace({'eager' if case.zeros else 'model'}, x)",
        f"small = {shrink}",
        "print(eager(*x)[0] - small.graph_module(*x)[0])",
    ]
    return "\n".join(lines)


def _used(case: Case) -> Masks:
    """The masks that shrink is given: those of parameters that the graph reads."""
    try:
        return case.masks if case.zeros else readable(passes.trace(given_model(case), example_of(case)), case.masks)
    except Exception:
        return case.masks


def node_count(case: Case) -> int:
    """Operators of the traced program; statements where it cannot be traced."""
    try:
        graph = passes.trace(build(case.program), example_of(case)).graph
        return sum(node.op == "call_function" for node in graph.nodes)
    except Exception:
        return sum(len(s.statements()) for s in case.program.steps)

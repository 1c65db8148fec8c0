"""Graphs of small modules: traced, and without what only a module's forward needs."""

from __future__ import annotations

from torch import fx, nn

from bpc.directory import Example, GraphCuts
from passes.driver import shrink
from passes.frontend.reference import masked_reference
from passes.frontend.trace import trace
from passes.ir.manager import PassManager
from passes.plan.copies import full_copy
from passes.plan.plan import ModuleView
from passes.report import count_parameters
from passes.rewrite.replace_constants import ReplaceConstants
from passes.verify import verify_equivalent


def small_graph(module: nn.Module, example: Example, cuts: GraphCuts | None) -> fx.GraphModule:
    """The graph of a small module on the CPU, its dead sublayers replaced by their constants.

    What the module only keeps because its forward could not follow ``cuts`` is zero, and goes from the graph again.
    Raises `VerificationError` if the graph is not what torch.export makes of the module.
    """
    args, kwargs = example
    traced = trace(on_cpu(module), kwargs or args)
    smaller = without_constants(traced)
    if cuts is not None and count_parameters(smaller) > cuts.parameters:
        return shrink(traced, granularity=cuts.granularity, multiple=cuts.multiple).graph_module
    return smaller


def on_cpu(module: nn.Module) -> nn.Module:
    """The module itself where it is on the CPU, else a copy."""
    elsewhere = any(parameter.device.type != "cpu" for parameter in module.parameters())
    return full_copy(module).cpu() if elsewhere else module


def part_graph(traced: fx.GraphModule, view: ModuleView, cuts: GraphCuts | None) -> fx.GraphModule:
    """The same of a traced part of a small module: of one step of its generation, for instance."""
    if view.refusal and cuts is not None:
        return shrink(traced, granularity=cuts.granularity, multiple=cuts.multiple).graph_module
    return without_constants(traced)


def without_constants(traced: fx.GraphModule) -> fx.GraphModule:
    """The graph with what is constant in it computed. Raises `VerificationError`."""
    outcome = PassManager((ReplaceConstants(),)).run(traced)
    if outcome.modified:
        verify_equivalent(masked_reference(traced), outcome.graph_module, traced=traced)
    return outcome.graph_module

"""`compile`: a model and a pattern spec become a `Program`, the masked model in two views.

The graph view (``program.graph_module``) shows every mask as a node; the module view (``program.module``) is the user's
own model. Both read the same parameters through the same mask objects, so training either trains both.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from bpc import inputs
from bpc.hub.widen import widen
from bpc.notebook import line, table
from bpc.oneshot.target import Target
from bpc.pricing import aim, price
from bpc.scores.attach import is_masked
from bpc.scores.files import multiply_masks
from bpc.scores.mask_set import MaskSet
from bpc.scores.plan import MaskPlan
from bpc.scores.rewind import surviving_blocks
from bpc.scores.structure import live_structure
from bpc.spec import Spec, SpecLike, load_spec, resolve
from bpc.wrapped import is_sharded, plain_model
from passes.driver import shrink
from passes.frontend.trace import trace
from passes.ir.graph import copy_graph, get_attribute, set_attribute
from passes.ir.info import TraceError, trace_info
from passes.masks import MaskSource, resolve_masks
from passes.plan.copies import full_copy
from passes.rewrite.insert_masks import insert_masks
from passes.structure.head_places import head_places
from passes.structure.roles import Roles, find_roles

if TYPE_CHECKING:
    from bpc.dense import DenseModel


class Program:
    """A model with block masks in front of its weights; made by `compile`.

    Attributes:
        graph_module: the traced graph with the masks inserted. Traced in eval mode: it has no dropout.
        module: the user's model, the same masks attached; without the DataParallel or torch.compile around it.
        mask_set: scores, thresholds and schedule (an ``nn.Module``, registered in ``module`` as well).
        spec: what was asked for.
        plans: what it resolved to.
        roles: the structure it was resolved on.
        target: what the small model shall cost; None: whatever λ leads to.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: fx.GraphModule,
        spec: Spec,
        roles: Roles,
        target: Target | None = None,
        rewind: MaskSource = None,
    ) -> None:
        self.spec = spec
        self.roles = roles
        self.target = target
        self.plans: tuple[MaskPlan, ...] = resolve(spec, roles)
        self.mask_set = MaskSet(self.plans, spec.mask_settings({plan.group for plan in self.plans}))
        self.module = model
        self._graph = graph
        if rewind is not None:  # before prices: what stays anyway has one
            self.mask_set.protect(surviving_blocks(self.plans, resolve_masks(graph, rewind), head_places(roles)))
        if target is not None:  # before the masks are attached: a target may be refused
            aim(self.mask_set, price(self.plain_graph(), roles, self.plans, target), target)
        self.graph_module = insert_masks(graph, self.mask_set.modules_by_parameter())
        self.mask_set.attach(model)
        self.mask_set.train(model.training)

    def masks(self) -> dict[str, Tensor]:
        """{parameter name: bool tensor of its shape}, at the final threshold; True where an entry is kept.

        A tied parameter is listed under each of its names. Raises `passes.MaskError` for scores that are NaN.
        """
        masks = self.mask_set.masks()
        aliases = trace_info(self._graph).aliases
        return masks | {alias: masks[name] for alias, name in aliases.items() if name in masks}

    def density(self) -> float:
        """Kept share of the masked weights' elements, at the current threshold."""
        return self.mask_set.density()

    def describe_cost(self) -> str:
        """What the masks leave costs at the end, and what was asked: ``26.1% of the parameters, of 26.2% asked``."""
        budget = self.mask_set.budget
        if budget is None:
            return "no target was given"
        whole, unit = budget.costs().total(), "time" if budget.unit == "s" else budget.unit
        return f"{budget.cost(final=True) / whole:.1%} of the {unit}, of {budget.wanted / whole:.1%} asked"

    def regularization(self) -> Tensor:
        """λ‖σ(S)‖ at the current progress: a scalar to add to the loss (paper, section 4)."""
        return self.mask_set.regularization()

    def set_progress(self, progress: float) -> None:
        """Move threshold and λ to where ``progress``, the finished share of the run in [0, 1], puts them."""
        self.mask_set.set_progress(progress)

    def score_parameters(self) -> list[nn.Parameter]:
        """The block scores, for an optimizer group of their own (higher learning rate, no weight decay)."""
        return list(self.mask_set.scores.parameters())

    def plain_graph(self) -> fx.GraphModule:
        """The traced graph without masks, on the CPU, reading the current parameters.

        Raises RuntimeError if the model's parameters are no longer those that were traced.
        """
        current = dict(self.module.named_parameters(remove_duplicate=False))
        graph = copy_graph(self._graph)
        for node in graph.graph.nodes:
            if node.op != "get_attr":
                continue
            name, tensor = str(node.target), get_attribute(graph, str(node.target))
            if isinstance(tensor, nn.Parameter) and current.get(name) is not tensor:
                if is_sharded(self.module):
                    raise RuntimeError(
                        "the program's module was cut into pieces (fully_shard), and only a whole one compiles: cut "
                        "bpc.train.replica(program.module, program.mask_set) in its place. What this one has learned "
                        "bpc.train.gather(fresh.module, program.module) puts into a fresh program"
                    )
                raise RuntimeError(
                    f"parameter {name!r} of the model was replaced after bpc.compile(); load weights in place "
                    "(load_state_dict), or compile again"
                )
            if tensor.device.type != "cpu":
                moved = tensor.detach().cpu()
                set_attribute(graph, name, nn.Parameter(moved) if isinstance(tensor, nn.Parameter) else moved)
        return graph

    def masked_model(self) -> nn.Module:
        """A copy of the model on the CPU, with the masks (at the final threshold) multiplied into its weights."""
        attached = any(is_masked(module) for module in self.module.modules())
        self.mask_set.detach(self.module)
        try:
            model = full_copy(self.module).cpu()
        finally:
            if attached:
                self.mask_set.attach(self.module)
        multiply_masks(model, self.masks())
        return model

    def shrink(self, *, verify: bool = True, tolerance: float | None = None, multiple: int = 1) -> DenseModel:
        """Compile the masks away: analysis, rewrite, verification. The program itself is left as it is.

        ``verify``, ``tolerance`` and ``multiple`` are those of `passes.shrink`, which raises
        `passes.VerificationError` if the small model and the masked one differ by more.
        """
        from bpc.dense import DenseModel

        masks = {name: mask.cpu() for name, mask in self.masks().items()}
        result = shrink(self.plain_graph(), masks, verify=verify, tolerance=tolerance, multiple=multiple)
        return DenseModel.from_shrink(result, self.masked_model())

    def detach(self) -> nn.Module:
        """Take the masks off the model again and return it, with its unmasked weights."""
        self.mask_set.detach(self.module)
        return self.module

    def __repr__(self) -> str:
        model = type(self.module).__name__
        return (
            f"Program({model}, spec={self.spec.name!r}, masked weights={len(self.plans)}, density={self.density():.3f})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: live heads and FFN dims by layer, at the current threshold."""
        found = live_structure(self.mask_set)
        heads, dims = (
            [f"{live:,} of {total:,}" for live, total in zip(*pair, strict=True)]
            for pair in ((found.heads, found.total_heads), (found.ffn_dims, found.total_ffn_dims))
        )
        rows = ((i, *pair) for i, pair in enumerate(zip_longest(heads, dims, fillvalue="")))
        return line(repr(self)) + table(("", "heads of an attention", "dims of an FFN"), rows)


def compile(
    model: nn.Module,
    spec: SpecLike,
    example_inputs: Any = None,
    *,
    target: Target | float | None = None,
    rewind: MaskSource = None,
) -> Program:
    """Trace ``model``, match ``spec`` against its linears, and put block masks in front of them.

    Args:
        model: any module `passes.trace` can trace. It is changed in place: its masked parameters are read through
            masks from now on (names, state dict and optimizers see no difference); `Program.detach` undoes it. Of a
            wrapped model (DataParallel, torch.compile, a Trainer's autocast) the model inside is compiled.
        spec: a `bpc.Spec`, a preset name ("hybrid", "struct", "block", …), a TOML/YAML/JSON path, or a dict.
        example_inputs: keyword dict, tuple or tensor; None makes them from what a model of transformers says it takes
            (`bpc.inputs.example_inputs`).
        target: what the small model shall cost: a `bpc.Target`, or a number, which is a speed-up. Masks then meet it
            exactly, in the place of the spec's thresholds; prices in seconds are measured, once per machine.
        rewind: masks of an earlier run (a file, or tensors by name): the heads that it kept are kept whole in this one.

    Raises `SpecError` for a spec that cannot be read or does not fit, `TargetError` for a target out of reach,
    `passes.TraceError` for a model that cannot be traced, ValueError for a model that has masks already or adapters
    (LoRA), TypeError for what is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"compile takes a loaded model (an nn.Module), not a {type(model).__name__}: {model!r}")
    spec = load_spec(spec)
    model = widen(plain_model(model))
    if any(is_masked(module) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has block masks already; call program.detach() before compiling again"
        )
    graph = copy_graph(_trace(model, example_inputs))
    wanted = None if target is None else Target.of(target)
    return Program(model, graph, spec, find_roles(graph), wanted, rewind)


def _trace(model: nn.Module, example_inputs: Any) -> fx.GraphModule:
    if example_inputs is not None:
        return trace(model, example_inputs)
    made = inputs.example_inputs(model)
    try:
        return trace(model, made or None)  # none found: the trace says what to do
    except TraceError as error:
        if not made:
            raise
        listed = ", ".join(f"{k} {tuple(v.shape) if isinstance(v, Tensor) else v}" for k, v in made.items())
        raise TraceError(
            f"{error}\n  The example inputs were made up ({listed}): if the model takes others, pass example_inputs."
        ) from error

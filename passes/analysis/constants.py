"""Forward analysis: which channels hold one number at every data index, whatever the input.

The facts of parameters are read on demand, one at a time, with their masks applied, and are not kept: memory stays
near one weight matrix above the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import fx

from passes.analysis.folding import Folding
from passes.analysis.rows import row_stochastic_nodes, shift_invariant
from passes.ir.graph import get_attribute
from passes.ir.sizes import is_parameter, tensor_of
from passes.ir.tensors import masked, not_zero
from passes.ops.facts import Fact, Factors, as_rows, fact_shape, factors_of, nothing_constant, outer
from passes.ops.linear_form import LinearForm, linear_form
from passes.ops.rule import Rule
from passes.ops.table import rule_for
from passes.ops.unknown import UNKNOWN

WeightReader = Callable[[str], torch.Tensor | None]


class Constants:
    """Facts of every value of a graph, and what other analyses derive from them.

    Args:
        masks: {parameter name: bool tensor of its shape}; masked entries count as 0.
        read: how to obtain a parameter's numbers by name; None for a parameter that cannot be read (meta device), which
            then counts as dense and of unknown value. Default: the graph module's own attributes.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        masks: Mapping[str, torch.Tensor] | None = None,
        read: WeightReader | None = None,
    ) -> None:
        self.graph_module = graph_module
        self.masks = masks or {}
        self._reader = read or self._own_weight
        # Reading is dear, where somebody else does it: patterns of whole rows and columns are kept as these.
        self._factors: dict[str, Factors] | None = None if read is None else {}
        self._not_read: Exception | None = None  # what the caller's reader raised: theirs to see
        self._facts: dict[fx.Node, Fact] = {}
        self._readers: dict[str, list[fx.Node]] = {}
        self._failed: dict[fx.Node, Exception] = {}
        self._row_stochastic = row_stochastic_nodes(graph_module.graph)
        self.uses: dict[str, list[LinearForm]] = {}
        self.from_inputs: set[fx.Node] = set()  # values that depend on an input's numbers, not just its size
        for node in graph_module.graph.nodes:
            form = linear_form(node)
            if is_parameter(node):
                self._readers.setdefault(str(node.target), []).extend(node.users)
            if form is not None:
                self.uses.setdefault(form.weight_name, []).append(form)
            if node.op == "placeholder" or (
                tensor_of(node) is not None and any(n in self.from_inputs for n in node.all_input_nodes)
            ):
                self.from_inputs.add(node)
        self.folding = Folding(self.uses, self.only_linear, self.folded_constants)
        for node in graph_module.graph.nodes:
            if tensor_of(node) is not None and not is_parameter(node):
                self._facts[node] = self._compute(node)

    def _own_weight(self, name: str) -> torch.Tensor | None:
        tensor = get_attribute(self.graph_module, name)
        return None if tensor.is_meta else tensor.detach()

    def _read(self, name: str) -> torch.Tensor | None:
        try:
            return self._reader(name)
        except Exception as error:
            self._not_read = error
            raise

    def _compute(self, node: fx.Node) -> Fact:
        value = tensor_of(node)
        assert value is not None
        if node.op == "placeholder" or value.dtype.is_complex:
            return nothing_constant(fact_shape(node), torch.float32 if value.dtype.is_complex else value.dtype)
        try:
            return self.rule(node).constant(node, self)
        except Exception as error:  # a call the rule was not written for: nothing is known of it
            self.fail(node, error)
            return nothing_constant(fact_shape(node), value.dtype)

    def rule(self, node: fx.Node) -> Rule:
        """The rule of a call; the conservative default where its own has failed."""
        return UNKNOWN if node in self._failed else rule_for(node)

    def fail(self, node: fx.Node, error: Exception) -> None:
        """From here on the node has the conservative default, and `failures` names it.

        Raises the error of a reader that could not give a weight: no rule is at fault then.
        """
        if error is self._not_read:
            raise error
        self._failed[node] = error

    @property
    def failures(self) -> dict[str, str]:
        """{operator: what its rule stumbled over}."""
        return {str(node.target): f"{type(error).__name__}: {error}" for node, error in self._failed.items()}

    def weight(self, name: str) -> torch.Tensor | None:
        """A parameter's numbers with its mask applied; None if they cannot be read."""
        tensor = self._read(name)
        mask = self.masks.get(name)
        if tensor is None:
            return None if mask is None else torch.where(mask, torch.nan, 0.0)
        return tensor if mask is None else masked(tensor, mask)

    def pattern(self, name: str) -> torch.Tensor | None:
        """Which entries of a parameter are not 0; None if it has neither numbers nor a mask: it counts as dense."""
        if self._factors is not None and name in self._factors:
            return outer(self._factors[name])
        tensor, mask = self._read(name), self.masks.get(name)
        if tensor is None:
            return mask
        if self._factors is not None:

            def rows(part: slice) -> torch.Tensor:
                return not_zero(tensor[part], None if mask is None else mask[part])

            if (factors := factors_of(tensor.shape, rows)) is not None:
                self._factors[name] = factors
                return outer(factors)
        return not_zero(tensor, mask)

    def fact(self, node: fx.Node) -> Fact:
        """The constants of a value; every entry of a parameter is one (complex ones are left alone)."""
        if not is_parameter(node):
            return self._facts[node]
        fake = tensor_of(node)
        assert fake is not None
        if fake.dtype.is_complex:
            return nothing_constant(fact_shape(node))
        value = self.weight(str(node.target))
        if value is None:
            value = torch.full((), torch.nan).expand(tuple(fake.shape))
        return Fact(torch.ones((), dtype=torch.bool).expand(value.shape), value)

    def row_stochastic(self, node: fx.Node) -> bool:
        """The rows (last dim) of a value sum to 1."""
        return node in self._row_stochastic

    def shift_invariant(self, node: fx.Node) -> bool:
        """One number added to a whole row (last dim) of a value changes no output."""
        return shift_invariant(node)

    def folds(self, form: LinearForm) -> torch.Tensor:
        """Input channels of a product, (in_features,), that fold into its bias: see `passes.analysis.folding`."""
        return self.folding.of(form).columns

    def only_linear(self, name: str) -> bool:
        """The parameter is read by linear products alone (not by an embedding as well, say)."""
        products = {form.node for form in self.uses.get(name, [])}
        windows = {form.weight_operand for form in self.uses.get(name, [])}
        return all(user in products or user in windows for user in self._readers.get(name, ()))

    def folded_constants(self, form: LinearForm) -> tuple[torch.Tensor, torch.Tensor]:
        """(is constant, value) per input feature of one linear node, each of shape (in_features,)."""
        fact = self.fact(form.input)
        const, value = fact.const, fact.value
        if const.dim() > 1:
            flat_const, flat_value = as_rows(const), as_rows(value)
            const = flat_const.all(0) & (flat_value.amin(0) == flat_value.amax(0))
            value = flat_value[0]
        return const & torch.isfinite(value), value

"""Helpers on graphs: copies share tensors, dead code goes, dotted names, sizes at run time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.ir.graph import (
    ancestors,
    copy_graph,
    descendants,
    eliminate_dead_code,
    get_attribute,
    prefix_attributes,
    set_attribute,
    set_numbers,
    size_argument,
)
from passes.ir.sizes import shape_of
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def test_a_copy_has_its_own_nodes_and_the_same_tensors() -> None:
    sketch = Sketch()
    module = sketch.done(sketch.call(aten.linear.default, sketch.input("b", 3), sketch.weight("inner.w", matrix(2, 3))))
    copy, renamed = copy_graph(module), prefix_attributes(module, "model.", {"inner.w"})
    assert get_attribute(copy, "inner.w") is get_attribute(renamed, "model.inner.w") is get_attribute(module, "inner.w")
    assert not set(copy.graph.nodes) & set(module.graph.nodes)
    assert "inner.w" not in dict(renamed.named_parameters())
    x = torch.ones(4, 3, dtype=torch.float64)
    assert torch.equal(renamed(x)[0], module(x)[0])


def test_dead_code_goes_random_numbers_too_and_asserts_stay() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    drawn = sketch.call(aten.bernoulli.default, x)
    sketch.call(aten.relu.default, drawn)
    used = sketch.call(aten.neg.default, x)
    check = sketch.graph.call_function(aten._assert_tensor_metadata.default, (x,))
    module = sketch.done(used)
    assert eliminate_dead_code(module)
    assert [n.name for n in module.graph.nodes if n.op == "call_function"] == [used.name, check.name]
    assert not eliminate_dead_code(module)


def test_a_name_holds_one_thing() -> None:
    root = nn.Module()
    set_attribute(root, "a.b", torch.ones(2))
    set_attribute(root, "a.b", nn.Parameter(torch.zeros(2)))
    assert (list(dict(root.named_parameters())), list(dict(root.named_buffers()))) == (["a.b"], [])
    set_attribute(root, "a.b", torch.ones(2))
    assert (list(dict(root.named_parameters())), list(dict(root.named_buffers()))) == ([], ["a.b"])


def test_numbers_are_replaced_in_kind_and_parameters_do_not_train() -> None:
    root, numbers = nn.Module(), nn.Parameter(torch.zeros(3))
    set_attribute(root, "a.b", nn.Parameter(torch.ones(2)))
    set_attribute(root, "a.c", torch.ones(2))
    for name in ("a.b", "a.c", "new.d"):
        set_numbers(root, name, numbers)
    assert list(dict(root.named_parameters())) == ["a.b", "new.d"]
    assert list(dict(root.named_buffers())) == ["a.c"]
    for tensor in (*root.parameters(), *root.buffers()):
        assert (tuple(tensor.shape), tensor.requires_grad) == ((3,), False)


def test_what_a_value_is_computed_from_and_what_from_it() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", 3), sketch.input("b", 3, name="y")
    a = sketch.call(aten.relu.default, x)
    b = sketch.call(aten.add.Tensor, a, y)
    assert ancestors([b]) == {a, x, y}
    assert descendants([x]) == {a, b}


def test_sizes_are_computed_from_the_inputs_that_show_them() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    wanted = size_argument(sketch.graph, shape_of(x)[0] * 2 + 1)
    module = sketch.done(sketch.graph.call_function(aten.ones.default, ([wanted],)))
    assert module(torch.zeros(7, 3))[0].shape == (15,)
    assert size_argument(sketch.graph, 4) == 4
    hidden = Sketch()
    unseen = shape_of(hidden.input("t", 3))[0] * 1
    hidden.graph.erase_node(next(iter(hidden.graph.nodes)))
    with pytest.raises(ValueError, match="which no input of the model shows"):
        size_argument(hidden.graph, unseen)

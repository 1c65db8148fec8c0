"""insert-masks: it fires (golden text), refuses (with the reason), is idempotent, and masks what it says."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import fx, nn

from passes.frontend.trace import trace
from passes.rewrite.insert_masks import PREFIX, InsertMasks, MaskInsertionError, RemoveMasks, insert_masks, remove_masks

GOLDEN = Path(__file__).parents[2] / "golden" / "insert_masks.txt"


class Half(nn.Module):
    """A mask with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * self.scale


class Shared(nn.Module):
    """One linear used twice, another once, and the first one's weight tied under a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.twin = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.twin.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(self.a(x))))


@pytest.fixture
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    return trace(Shared(), torch.randn(2, 4))


def text(graph_module: fx.GraphModule) -> str:
    return "\n".join(str(node.format_node()) for node in graph_module.graph.nodes) + "\n"


def test_the_printed_graph_shows_the_masks(graph: fx.GraphModule) -> None:
    masked = insert_masks(graph, {"a.weight": Half(), "b.weight": Half(), "b.bias": Half()})
    assert text(masked) == GOLDEN.read_text()


def test_every_use_goes_through_the_one_mask(graph: fx.GraphModule) -> None:
    x, half = torch.randn(3, 4), Half()
    masked = insert_masks(graph, {"a.weight": half})
    plain = graph(x)
    with torch.no_grad():
        half.scale.fill_(1.0)
    torch.testing.assert_close(masked(x), plain, rtol=0, atol=0)
    with torch.no_grad():
        half.scale.fill_(0.0)
    bias = graph.get_parameter("a.bias")
    expected = nn.functional.linear(torch.relu(bias), graph.get_parameter("b.weight"), graph.get_parameter("b.bias"))
    torch.testing.assert_close(masked(x), expected.expand(3, 4), rtol=0, atol=0)


def test_the_masks_train_and_parameters_stay_the_same_objects(graph: fx.GraphModule) -> None:
    half = Half()
    masked = insert_masks(graph, {"a.weight": half})
    masked(torch.randn(3, 4)).sum().backward()
    assert half.scale.grad is not None
    assert half.scale.grad.abs() > 0
    read = [node.target for node in graph.graph.nodes if node.op == "get_attr"]
    assert all(masked.get_parameter(name) is graph.get_parameter(name) for name in read)


def test_the_graph_that_came_in_is_untouched(graph: fx.GraphModule) -> None:
    before = text(graph)
    insert_masks(graph, {"a.weight": Half()})
    assert text(graph) == before


def test_a_tied_name_masks_the_parameter(graph: fx.GraphModule) -> None:
    half = Half()
    by_either = [insert_masks(graph, {name: half}) for name in ("a.weight", "twin.weight")]
    assert text(by_either[0]) == text(by_either[1])


def test_idempotent(graph: fx.GraphModule) -> None:
    step = InsertMasks({"a.weight": Half(), "b.bias": Half()})
    first = step.run(graph)
    again = step.run(first.graph_module)
    assert (first.modified, again.modified) == (True, False)
    assert again.graph_module is first.graph_module


def test_one_mask_may_serve_several_parameters(graph: fx.GraphModule) -> None:
    step = InsertMasks(dict.fromkeys(("a.weight", "b.weight"), Half()))
    first = step.run(graph)
    assert not step.run(first.graph_module).modified


def test_masks_can_be_added_one_after_the_other(graph: fx.GraphModule) -> None:
    a, b = Half(), Half()
    x = torch.randn(3, 4)
    together = insert_masks(graph, {"a.weight": a, "b.weight": b})
    one_by_one = insert_masks(insert_masks(graph, {"a.weight": a}), {"b.weight": b})
    torch.testing.assert_close(one_by_one(x), together(x), rtol=0, atol=0)


def test_removal_restores_the_graph(graph: fx.GraphModule) -> None:
    masked = insert_masks(graph, {"a.weight": Half(), "b.bias": Half()})
    result, x = RemoveMasks().run(masked), torch.randn(3, 4)
    plain = result.graph_module
    assert result.modified
    assert text(plain) == text(remove_masks(masked)) == text(graph)
    torch.testing.assert_close(plain(x), graph(x), rtol=0, atol=0)
    assert not any(isinstance(module, Half) for module in plain.modules())
    assert RemoveMasks().run(plain).modified is False


def test_only_our_masks_are_removed() -> None:
    """A model may call a part of its own so, and a graph may call other modules."""
    graph = trace(nn.Sequential(OrderedDict({PREFIX: nn.Linear(4, 4)})), torch.randn(2, 4))
    assert f"{PREFIX}.weight" in text(graph)
    graph.add_submodule("other", Half())
    with graph.graph.inserting_before(graph.graph.output_node()):
        graph.graph.call_module("other", (next(iter(graph.graph.nodes)),))
    assert not RemoveMasks().run(graph).modified


def test_refuses_a_parameter_that_nothing_reads_and_says_so_before_it_runs(graph: fx.GraphModule) -> None:
    graph.add_module("idle", nn.Linear(4, 4))
    with graph.graph.inserting_before(graph.graph.output_node()):
        graph.graph.get_attr("idle.weight")
    with pytest.raises(MaskInsertionError, match=r"reads no parameter 'idle\.weight'"):
        InsertMasks({"idle.weight": Half()}).requires(graph)


def test_refuses_an_unknown_parameter(graph: fx.GraphModule) -> None:
    with pytest.raises(MaskInsertionError, match=r"reads no parameter 'a\.wieght'; did you mean 'a\.weight'\?"):
        insert_masks(graph, {"a.wieght": Half()})


def test_refuses_two_masks_for_one_parameter(graph: fx.GraphModule) -> None:
    with pytest.raises(MaskInsertionError, match="two different masks"):
        insert_masks(graph, {"a.weight": Half(), "twin.weight": Half()})


def test_refuses_to_mask_over_another_mask(graph: fx.GraphModule) -> None:
    masked = insert_masks(graph, {"a.weight": Half()})
    with pytest.raises(MaskInsertionError, match="masked already, by another module"):
        insert_masks(masked, {"a.weight": Half()})

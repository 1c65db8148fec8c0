"""Verification notices what is wrong, says where, and tries inputs of other shapes; broken graphs are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.driver import shrink
from passes.frontend.trace import trace
from passes.ir.graph import copy_graph, get_attribute, set_attribute
from passes.ir.invariants import GraphInvariantError, check_graph
from passes.ir.manager import Pass, PassError, PassManager, PassResult
from passes.verify.compare import verify_equivalent
from passes.verify.errors import NotFiniteError, VerificationError
from passes.verify.inputs import fresh_inputs


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(self.embedding(ids)))) * mask.unsqueeze(-1)


@pytest.fixture
def graph() -> torch.fx.GraphModule:
    torch.manual_seed(0)
    ids = torch.randint(2, 9, (2, 5))
    return trace(Net(), {"ids": ids, "mask": torch.ones_like(ids)})


def changed(graph: torch.fx.GraphModule, name: str, by: float) -> torch.fx.GraphModule:
    result = copy_graph(graph)
    set_attribute(result, name, nn.Parameter(get_attribute(graph, name).detach() + by))
    return result


def test_equal_graphs_agree_on_several_shapes(graph: torch.fx.GraphModule) -> None:
    agreement = verify_equivalent(graph, copy_graph(graph), tolerance=0.0)
    assert agreement.max_abs_diff == 0
    assert len(set(agreement.shapes)) >= 3
    assert agreement.dtype == "float32"
    assert "largest difference 0.00e+00" in str(agreement)


def test_a_wrong_number_is_found_and_located(graph: torch.fx.GraphModule) -> None:
    with pytest.raises(VerificationError, match=r"differs .* First value that differs: (up_bias|linear) "):
        verify_equivalent(graph, changed(graph, "up.bias", 0.1), tolerance=1e-5)


def test_differences_within_the_tolerance_are_reported(graph: torch.fx.GraphModule) -> None:
    agreement = verify_equivalent(graph, changed(graph, "down.bias", 1e-4), tolerance=1e-2)
    assert agreement.max_abs_diff == pytest.approx(1e-4, rel=0.01)


def test_fresh_inputs_have_other_shapes_the_same_ranges_and_no_empty_rows(graph: torch.fx.GraphModule) -> None:
    seen = set()
    for _, _, kwargs in fresh_inputs(graph):
        ids, mask = kwargs["ids"], kwargs["mask"]
        seen.add(tuple(ids.shape))
        assert ids.shape == mask.shape
        assert 2 <= int(ids.min()) <= int(ids.max()) <= 8
        assert set(mask.unique().tolist()) <= {0, 1}
        assert bool(mask.any(1).all())
    assert len(seen) >= 2


@pytest.mark.parametrize(
    ("example", "visible"),
    [
        ([[True, True, True], [True, True, False]], True),  # Hugging Face: 1 is seen
        ([[False, True, True], [True, True, True]], True),  # padded on the left
        ([[False, False, False], [False, True, True]], False),  # torch: True is padding
        ([[True, False, False], [False, False, False]], False),
        ([[False, False, False], [False, False, False]], False),
    ],
)
def test_fresh_masks_hide_what_the_example_hides(example: list[list[bool]], visible: bool) -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x.masked_fill(mask, 0.0)

    masks = [args[1] for _, args, _ in fresh_inputs(trace(Masked(), (torch.randn(2, 3), torch.tensor(example))))][1:]
    assert all(bool((mask[:, 0] == visible).all()) for mask in masks)
    assert any(bool((mask != visible).any()) for mask in masks)


def test_padding_masks_where_true_hides_verify() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True).double()
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    nn.init.normal_(encoder.layers[0].self_attn.in_proj_bias)
    padding = torch.tensor([[False, False], [False, True]])  # few keys: a random tail is often the whole row
    inputs = {"src": torch.randn(2, 2, 8).double(), "src_key_padding_mask": padding}
    dead = torch.arange(24).lt(16).unsqueeze(1).expand(24, 8).clone()  # the values are their biases
    shrink(trace(encoder, inputs), {"layers.0.self_attn.in_proj_weight": dead})


def test_fresh_inputs_are_the_same_for_the_same_seed(graph: torch.fx.GraphModule) -> None:
    one, two = ([k["ids"] for _, _, k in fresh_inputs(graph, seed=3)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_infinite_references_are_refused(graph: torch.fx.GraphModule) -> None:
    broken = changed(graph, "down.bias", float("inf"))
    with pytest.raises(NotFiniteError, match="not finite"):
        verify_equivalent(broken, broken, tolerance=1.0)


def test_dangling_names_and_empty_parameters_are_broken_graphs(graph: torch.fx.GraphModule) -> None:
    dangling = copy_graph(graph)
    node = next(n for n in dangling.graph.nodes if n.target == "up.weight")
    node.target = "gone.weight"
    with pytest.raises((GraphInvariantError, RuntimeError), match=r"gone\.weight"):
        check_graph(dangling)
    empty = copy_graph(graph)
    set_attribute(empty, "up.weight", nn.Parameter(torch.zeros(0, 4)))
    with pytest.raises(GraphInvariantError, match=r"up\.weight has no entries"):
        check_graph(empty)


class Break(Pass):
    """Empties a parameter."""

    name = "break"

    def run(self, graph_module: torch.fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        set_attribute(result, "up.weight", nn.Parameter(torch.zeros(0, 4)))
        return PassResult(result, True)


class Nothing(Pass):
    name = "nothing"

    def run(self, graph_module: torch.fx.GraphModule) -> PassResult:
        return PassResult(graph_module, False)


def test_the_manager_names_the_pass_that_broke_the_graph(graph: torch.fx.GraphModule) -> None:
    with pytest.raises(PassError, match=r"pass break left a broken graph \(after \['nothing'\]\): up.weight"):
        PassManager((Nothing(), Break())).run(graph)
    outcome = PassManager((Nothing(), Nothing())).run(graph)
    assert (outcome.modified, outcome.graph_module) == (False, graph)

"""What rounding explains passes, what it does not is refused, whatever the outputs' size, neighbours and dtype."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.driver import shrink
from passes.frontend.trace import trace
from passes.ir.graph import copy_graph
from passes.verify.compare import compare, verify_equivalent
from passes.verify.errors import VerificationError
from passes.verify.record import record_reference
from tests.passes.verify.models import Net, changed, net_inputs

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def graph() -> torch.fx.GraphModule:
    return trace(Net(), net_inputs())


def test_equal_graphs_agree_on_several_shapes(graph: torch.fx.GraphModule) -> None:
    agreement = verify_equivalent(graph, copy_graph(graph), tolerance=0.0)
    assert agreement.max_abs_diff == 0
    assert (len(set(agreement.shapes)), agreement.fresh, agreement.skipped) == (4, 2, ())
    assert agreement.dtype == "float32"
    assert 0 < agreement.floor < 1e-6
    assert str(agreement) == (
        f"largest difference 0.00e+00, rounding alone {agreement.floor:.2e} (float32, 4 input shapes)"
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_an_error_of_a_third_is_refused_in_every_precision_and_at_every_size(dtype: torch.dtype, scale: float) -> None:
    if dtype is torch.float16:
        scale = max(scale, 1e-3)  # 1e-6 is next to nothing there: all of it is rounding
    graph = trace(Net(scale).to(dtype), net_inputs())
    assert verify_equivalent(graph, copy_graph(graph)).used < 0.2
    with pytest.raises(VerificationError, match="times what rounding explains"):
        verify_equivalent(graph, changed(graph, "down.weight", lambda w: w * 1.3))


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_a_small_error_is_refused_where_the_precision_shows_it(dtype: torch.dtype) -> None:
    graph = trace(Net(1e-6).to(dtype), net_inputs())
    with pytest.raises(VerificationError, match="times what rounding explains"):
        verify_equivalent(graph, changed(graph, "down.weight", lambda w: w * (1 + 1e-4)))


def test_an_outlier_channel_hides_no_error_in_the_others() -> None:
    model = Net()
    with torch.no_grad():
        model.down.weight[0] *= 1e6
    graph = trace(model, net_inputs())

    def wrong(weight: torch.Tensor) -> torch.Tensor:
        weight[1] *= 1.06
        return weight

    with pytest.raises(VerificationError, match="times what rounding explains"):
        verify_equivalent(graph, changed(graph, "down.weight", wrong))
    verify_equivalent(graph, changed(graph, "down.weight", wrong), tolerance=1e-3)  # as a constant bound would


def test_a_model_that_loses_much_to_rounding_is_no_wrong_model() -> None:
    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down, self.near = nn.Linear(8, 64), nn.Linear(64, 8), nn.Linear(64, 8)
            with torch.no_grad():
                for parameter in self.down.parameters():
                    parameter *= 1e5
                self.near.weight.copy_(self.down.weight * (1 + 1e-5 * torch.rand(8, 64)))
                self.near.bias.copy_(self.down.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.up(x))
            return self.near(hidden) - self.down(hidden)

    torch.manual_seed(1)
    keep = (torch.rand(64, 1) > 0.5).expand(64, 8).clone()
    graph = trace(Cancelling(), torch.randn(2, 5, 8))
    agreement = shrink(graph, {"up.weight": keep}).report.agreement
    assert agreement is not None
    assert agreement.max_rel_diff > 1e-4  # over any constant that is of use elsewhere
    assert agreement.used < 1


def test_zeros_are_refused(graph: torch.fx.GraphModule) -> None:
    reference = record_reference(graph)
    with pytest.raises(VerificationError, match="times what rounding explains"):
        compare(reference, lambda **inputs: torch.zeros(*inputs["ids"].shape, 2))


def test_a_wrong_fold_is_refused(graph: torch.fx.GraphModule) -> None:
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[:2] = False
    small = shrink(graph, {"up.weight": mask}).graph_module
    bias = next(str(n.target) for n in small.graph.nodes if n.target == "down.bias")
    masked = changed(graph, "up.weight", lambda w: w * mask)
    assert verify_equivalent(masked, small).used < 1
    with pytest.raises(VerificationError, match="times what rounding explains"):
        verify_equivalent(masked, changed(small, bias, lambda b: b + 1e-4))


def test_a_given_tolerance_bounds_the_relative_difference(graph: torch.fx.GraphModule) -> None:
    other = changed(graph, "down.bias", lambda b: b + 1e-4)
    assert verify_equivalent(graph, other, tolerance=1e-2).max_abs_diff == pytest.approx(1e-4, rel=0.01)
    with pytest.raises(VerificationError, match=r"tolerance 1\.0e-06; the masked model's own rounding is"):
        verify_equivalent(graph, other, tolerance=1e-6)


def test_decisions_are_equal_but_where_rounding_decides() -> None:
    class Best(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up = nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.up(x)
            return torch.cat([y, y[..., :1]], -1).argmax(-1)

    graph = trace(Best(), torch.randn(3, 5, 4))

    def turned(weight: torch.Tensor) -> torch.Tensor:
        return weight.roll(1, 0)

    assert verify_equivalent(graph, copy_graph(graph)).max_abs_diff == 0
    with pytest.raises(VerificationError, match=r"int64 output differs .* where rounding does not decide"):
        verify_equivalent(graph, changed(graph, "up.weight", turned))
    reference = record_reference(graph)
    verify_equivalent(graph, changed(graph, "up.weight", lambda w: w * (1 + 1e-7)))
    with pytest.raises(VerificationError, match="int64 output differs"):
        compare(reference, lambda x: graph(x) + 1)


def test_outputs_of_other_shapes_and_dtypes_are_refused_and_so_are_graphs_that_fail(
    graph: torch.fx.GraphModule,
) -> None:
    reference = record_reference(graph)
    with pytest.raises(VerificationError, match=r"output \(2, 5, 2\) became \(2, 5, 1\)"):
        compare(reference, lambda **inputs: graph(**inputs)[..., :1])
    with pytest.raises(VerificationError, match=r"output torch.float32 became torch.float64"):
        compare(reference, lambda **inputs: graph(**inputs).double())
    with pytest.raises(VerificationError, match=r"2 outputs, the masked one 1"):
        compare(reference, lambda **inputs: (graph(**inputs), graph(**inputs)))

    def fails(**inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such size")

    with pytest.raises(VerificationError, match=r"fails on inputs example, .*RuntimeError: no such size"):
        compare(reference, fails)


def test_the_report_says_that_no_other_shape_ran() -> None:
    graph = trace(Net(), net_inputs(), dynamic=False)
    agreement = verify_equivalent(graph, copy_graph(graph))
    assert agreement.fresh == 0
    assert "no shape but the example's" in str(agreement)

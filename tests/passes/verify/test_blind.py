"""Attention rows that see no key are left out by name, and only what depends on them."""

from __future__ import annotations

import pytest
import torch

import passes
from passes.verify.record import record_reference
from tests.passes.verify.models import Decoder, changed

LEFT = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])


def traced(model: Decoder, mask: torch.Tensor) -> torch.fx.GraphModule:
    ids = torch.randint(0, 20, tuple(mask.shape), generator=torch.Generator().manual_seed(0))
    return passes.trace(model, {"ids": ids, "mask": mask})


def values_gone() -> dict[str, torch.Tensor]:
    """All but the bias of the values goes, which folds: blind rows change."""
    return {"v.weight": torch.zeros(8, 8, dtype=torch.bool)}


@pytest.mark.parametrize("form", ["sdpa", "eager"])
def test_left_padded_examples_shrink_and_the_report_counts_what_was_left_out(form: str) -> None:
    agreement = passes.shrink(traced(Decoder(form), LEFT), values_gone()).report.agreement
    assert agreement is not None
    assert agreement.why[0].startswith("example: 2 positions: rows of ")
    assert agreement.why[0].endswith("see no key")
    assert f"{agreement.excluded} positions that see no key left out" in str(agreement)


def test_only_the_positions_that_depend_on_blind_rows_are_left_out() -> None:
    example = record_reference(traced(Decoder(), LEFT)).trials[0]
    compared = example.expected[0].compared
    assert compared is not None
    assert torch.equal(compared, LEFT.bool().unsqueeze(-1).expand(2, 4, 8))


def test_an_error_at_other_positions_is_still_seen() -> None:
    graph = traced(Decoder(), LEFT)
    with pytest.raises(passes.VerificationError, match="on inputs example"):
        passes.verify.verify_equivalent(graph, changed(graph, "v.bias", lambda b: b + 1e-3))


def test_nothing_left_to_compare_is_an_error() -> None:
    blind = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(passes.VerificationError, match=r"nothing is left to compare: example: .* see no key"):
        record_reference(passes.trace(Decoder(pooled=True), {"ids": blind, "mask": blind}, dynamic=False))


def test_masks_that_show_every_row_a_key_leave_nothing_out() -> None:
    model = Decoder()
    reference = record_reference(traced(model, torch.ones_like(LEFT)))
    assert reference.trials[0].excluded == 0
    assert reference.trials[0].expected[0].compared is None
    assert sum(trial.excluded for trial in reference.trials) > 0  # a fresh batch is padded on the left

"""The certificate: what it says of a shrink, and what it refuses to be read from."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import passes
from passes.certificate import Certificate, CertificateError, digest


@pytest.fixture(scope="module")
def result() -> passes.ShrinkResult:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[:3] = False
    return passes.shrink(passes.trace(model, torch.randn(3, 6)), {"0.weight": mask})


def test_it_names_weights_passes_and_differences(result: passes.ShrinkResult) -> None:
    certificate = result.certificate
    assert certificate.masked.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert certificate.small["0.weight"] == digest(result.graph_module.get_parameter("0.weight"))
    assert certificate.masked["2.weight"] != certificate.small["2.weight"]
    assert passes.Plan.from_json(json.dumps(certificate.plan)).cuts == result.plan.cuts
    ran = {step["name"]: step for step in certificate.passes}
    assert list(ran)[:4] == ["bake-weights", "apply-masks", "fold-constants", "shrink-dims"]
    assert ran["fold-constants"] == {"name": "fold-constants", "modified": True, "counts": {"folds": 1}}
    assert ran["drop-noop-slices"]["modified"] is False
    assert certificate.agreement is not None
    assert len(certificate.agreement["shapes"]) == 4
    assert certificate.dtype == "float32"
    assert certificate.versions["torch"] == torch.__version__


def test_it_says_where_nothing_was_run() -> None:
    graph = passes.trace(nn.Linear(3, 2), torch.randn(3, 3))
    assert passes.shrink(graph, verify=False).certificate.agreement is None


def test_a_tolerance_without_end_is_read_back() -> None:
    graph = passes.trace(nn.Linear(3, 2), torch.randn(3, 3))
    text = passes.shrink(graph, tolerance=float("inf")).certificate.to_json()
    assert Certificate.from_json(text).options["tolerance"] == "Infinity"


def test_the_same_shrink_leaves_the_same_text(result: passes.ShrinkResult) -> None:
    text = result.certificate.to_json()
    assert Certificate.from_json(text) == Certificate.from_json(Certificate.from_json(text).to_json())
    assert Certificate.from_json(text).to_json() == text


def test_a_digest_with_a_mask_is_that_of_the_masked_tensor() -> None:
    tensor = torch.randn(700, 1024)  # some pieces
    for rows in (tensor, tensor[0], tensor[0, 0]):
        mask = torch.rand(rows.shape) > 0.4
        assert digest(rows, mask) == digest(rows.masked_fill(~mask, 0)) != digest(rows.masked_fill(mask, 0))


def test_a_digest_is_of_dtype_shape_and_numbers() -> None:
    tensor = torch.tensor([[1.0, -0.0], [2.0, 3.0]])
    assert digest(tensor) == digest(tensor.t().contiguous().t()) == digest(tensor.abs())
    others = [tensor.double(), tensor.reshape(4), tensor + 1e-6, tensor.t(), tensor.to(torch.bfloat16)]
    assert len({digest(t) for t in (tensor, *others)}) == 6
    assert digest(torch.zeros(0, 3)) != digest(torch.zeros(3, 0))
    assert digest(torch.tensor(1)) != digest(torch.tensor(True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "format None"),
        ('{"format": 99}', "format 99, not 1"),
        ('{"format": 1}', "changed after it was written"),
        ("null", "format None"),
    ],
)
def test_what_is_no_certificate_is_refused(text: str, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        Certificate.from_json(text)


def test_a_change_of_any_entry_is_noticed(result: passes.ShrinkResult) -> None:
    data = json.loads(result.certificate.to_json())
    for change in ({"dtype": "float64"}, {"agreement": None}, {"extra": 1}, {"digest": "0"}, {"plan": {}}):
        with pytest.raises(CertificateError, match="changed after it was written"):
            Certificate.from_json(json.dumps({**data, **change}))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("view", "picture"), ("dtype", "Tensor"), ("dtype", 3), ("seed", "0"), ("options", []), ("masked", {"a": 1}),
        ("plan", []), ("passes", [1]), ("passes", [{"name": 1, "modified": True, "counts": {}}]), ("agreement", 1),
    ],
)  # fmt: skip
def test_entries_of_another_kind_are_named(result: passes.ShrinkResult, entry: str, value: Any) -> None:
    """Even with a digest that fits: a file by someone else."""
    forged = Certificate.from_json(result.certificate.to_json())
    object.__setattr__(forged, entry, value)
    with pytest.raises(CertificateError, match=f"{entry} is "):
        Certificate.from_json(forged.to_json())

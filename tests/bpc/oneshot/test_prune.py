"""`bpc.prune_once` as it is called: any model in, a smaller one that computes what was promised out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bpc
from bpc.costs import Costs
from bpc.oneshot import CalibrationError, TargetError
from bpc.oneshot.ladders import Narrow
from bpc.oneshot.prune import prune_once
from passes.ir.graph import get_attribute
from tests.bpc.oneshot.models import MODELS, made

QUICK: dict[str, Any] = {"multiple": 1, "effort": 0.05}


def parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_gets_to_its_target(name: str) -> None:
    model, batches = made(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    dense = prune_once(model, batches, bpc.Target(params=0.75), **QUICK, progress=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    small = parameters(dense.graph_module)
    assert 0.6 * parameters(model) < small <= 0.75 * parameters(model)
    assert dense.report is not None
    assert dense.report.agreement is not None
    found = dense.one_shot
    assert found is not None
    assert found.speedup is None
    assert found.examples == sum(len(next(iter(b.values()))) for b in batches)
    with torch.no_grad():
        given, wanted = dense.module(**batches[0]).logits, model(**batches[0]).logits
    assert torch.isfinite(given).all()
    assert found.divergence > 0
    assert not torch.equal(given, wanted)


def test_the_module_is_the_graph_and_comes_back_from_disk(tmp_path: Path) -> None:
    model, batches = made("bert")
    dense = prune_once(model, batches, bpc.Target(density=0.5), **QUICK, progress=False)
    dense.save_pretrained(tmp_path / "small")
    loaded = bpc.load(tmp_path / "small").module
    with torch.no_grad():
        wanted = dense.graph_module(**batches[1]).logits
        torch.testing.assert_close(loaded(**batches[1]).logits, wanted, rtol=1e-4, atol=1e-4)


def test_better_than_the_same_masks_without_repair_or_order() -> None:
    model, batches = made("bert")
    dense = prune_once(model, batches, bpc.Target(density=0.6), **QUICK, progress=False)
    assert dense.one_shot is not None
    worse = 0.0
    with torch.no_grad():
        for choice in dense.one_shot.choices:  # the first units instead, and no refit
            weight = get_attribute(model, choice.weight)
            weight[:, choice.kept * (weight.shape[1] // choice.count) :] = 0
        original, _ = made("bert")
        for batch in batches:
            p, q = (m(**batch).logits.log_softmax(-1) for m in (original, model))
            worse += float((p.exp() * (p - q)).sum(-1).mean()) / len(batches)
    assert dense.one_shot.divergence < 0.5 * worse


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = made("bert")
    options: dict[str, Any] = {**QUICK, "progress": False, "state": tmp_path / "state"}
    target = bpc.Target(density=0.5)

    def interrupt(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("bpc.oneshot.problem.repair", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prune_once(model, batches, target, **options)
    with monkeypatch.context() as patched:
        patched.setattr("bpc.oneshot.ladders.removal_order", interrupt)  # nothing is measured again
        again = prune_once(model, batches, target, **options)
    fresh = prune_once(model, batches, target, **QUICK, progress=False)
    assert again.one_shot is not None
    assert fresh.one_shot is not None
    assert again.one_shot.choices == fresh.one_shot.choices


def test_a_speed_up_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    model, batches = made("bert")
    target = bpc.Target(speedup=1.2, runtime="eager", shape=(2, 8), threads=1)
    dense = prune_once(model, batches, target, **QUICK)
    assert dense.one_shot is not None
    assert dense.one_shot.speedup is not None
    assert dense.one_shot.speedup > 0
    assert dense.one_shot.unit == "s"
    assert dense(**{k: v[:3, :5] for k, v in batches[0].items()}).logits.shape == (3, 3)  # no size was fixed on the way
    shown = capsys.readouterr().err
    assert "8 heads and 96 dims in 4 layers" in shown
    assert "measuring layers: " in shown


def test_pruning_further_by_known_prices_times_no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = made("bert")
    target = bpc.Target(speedup=1.2, runtime="eager", shape=(2, 8), threads=1)
    counted = prune_once(model, batches, bpc.Target(density=0.9), **QUICK, progress=False).one_shot
    prices = Costs(1.0, {c.name: np.arange(c.count + 1.0) for c in counted.choices}, "s")
    monkeypatch.setattr("bpc.oneshot.problem.measured", None)
    monkeypatch.setattr("bpc.oneshot.prune.measured_speedup", lambda *_: target.speedup)
    once = prune_once(model, batches, target, **QUICK, progress=False, prices=prices)
    again = prune_once(once.module, batches, target, **QUICK, progress=False, prices=prices)
    assert "prices" not in once.one_shot.to_dict()
    for before, after in ((prices.total(), once.one_shot), (once.one_shot.expected_cost, again.one_shot)):
        assert after.original_cost == pytest.approx(before)
        assert 0.8 * before / 1.2 < after.expected_cost <= before / 1.2
    assert [c.count for c in again.one_shot.choices] == [max(c.kept, 1) for c in once.one_shot.choices]
    with pytest.raises(ValueError, match="these prices are of another model: they do not say what"):
        prune_once(model, batches, target, **QUICK, progress=False, prices=again.one_shot.prices)


def test_nothing_to_remove_is_said_and_nothing_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    model, batches = made("bert")
    dense = prune_once(model, batches, bpc.Target(params=1.0), **QUICK)
    assert "nothing to remove" in capsys.readouterr().err
    assert parameters(dense.graph_module) == parameters(model)


def test_a_protected_layer_keeps_its_units() -> None:
    model, batches = made("bert")
    dense = prune_once(model, batches, bpc.Target(density=0.5), protect=["*layer.0.*"], progress=False, **QUICK)
    layer = dense.module.bert.encoder.layer[0]  # type: ignore[union-attr,index]
    assert layer.intermediate.dense.out_features == 48
    assert dense.one_shot is not None
    assert all("layer.1" in choice.weight for choice in dense.one_shot.choices)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": bpc.Target(params=0.01)}, TargetError, "that stay when every head and dim has gone"),
        ({"target": 0.5}, TargetError, "1 or more"),
        ({"target": 2.0, "data": []}, CalibrationError, "hold no examples"),
        ({"target": 2.0, "protect": ["nope.*"]}, TargetError, "'nope.\\*' matches no weight"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model, batches = made("bert")
    with pytest.raises(error, match=message):
        prune_once(model, **{"data": batches, "progress": False, **options})


def test_a_path_is_no_model() -> None:
    with pytest.raises(TypeError, match="takes a loaded model"):
        prune_once("bert", [], 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "narrow", "ffn", "followed"),
    [
        ("bert", "alike", "*.intermediate.dense.weight", True),
        ("gpt2", "alike", "*.mlp.c_proj.weight", True),
        ("t5", "alike", "*.wo.weight", False),  # whose module has one number of heads for all layers
        ("llama", "freely", "*.down_proj.weight", False),
    ],
)
def test_heads_get_narrower_where_they_have_to(
    name: str, narrow: Narrow, ffn: str, followed: bool, tmp_path: Path
) -> None:
    model, batches = made(name)
    options: dict[str, Any] = {**QUICK, "progress": False, "narrow": narrow, "state": tmp_path, "protect": [ffn]}
    dense = prune_once(model, batches, bpc.Target(density=0.6), **options)
    assert dense.one_shot is not None
    assert [c for c in dense.one_shot.choices if c.values is not None]
    assert "dims of queries and keys/values" in str(dense.one_shot)
    with torch.no_grad():
        given, module = dense(**batches[0]).logits, dense.module(**batches[0]).logits
    torch.testing.assert_close(given, module, rtol=1e-3, atol=1e-3)
    if followed:
        assert parameters(dense.module) == parameters(dense.graph_module)
    again = prune_once(model, batches, bpc.Target(density=0.6), **options)
    assert again.one_shot is not None
    assert again.one_shot.choices == dense.one_shot.choices

"""Units that were pruned learn whether to come back, and the model is the masked one all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.func import functional_call

from bpc.program import Program, compile
from tests.bpc.spec.conftest import CAUSAL, ids, roles_of
from tests.bpc.spec.plans import DIM, DIMS, HEADS, by_role, plans

REVIVE = {"scores": {"revive": True}}


class FFN(nn.Module):
    activation = staticmethod(torch.sigmoid)  # whose value at 0 is not 0

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.activation(self.up(x)))


class Gelu(FFN):
    activation = staticmethod(nn.functional.gelu)


def pruned(model: nn.Module, rules: list[dict[str, Any]], inputs: Any, **settings: Any) -> Program:
    """A program in training, half-way, with about half of its units pruned."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.5)
    program = compile(model.double().eval(), {"rules": rules, **REVIVE, **settings}, inputs)
    program.module.train()
    program.set_progress(0.7)
    for scores in program.score_parameters():
        with torch.no_grad():
            scores.copy_(torch.where(torch.rand(scores.shape) < 0.5, -4.0, 2.0))
    return program


def masked_weights(program: Program) -> dict[str, Tensor]:
    masks = program.mask_set.masks(final=False)
    own = {name: p.detach().clone() for name, p in program.module.named_parameters() if "block_masks" not in name}
    return {name: p * masks[name] if name in masks else p for name, p in own.items()}


@pytest.mark.parametrize("attention", [HEADS | {"paired": True}, DIMS], ids=["heads", "dims"])
def test_a_forward_is_that_of_the_masked_weights(attention: dict[str, Any]) -> None:
    model = hf.GPT2Model(hf.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4, use_cache=False, resid_pdrop=0,
                                       embd_pdrop=0, attn_pdrop=0))  # fmt: skip
    program = pruned(model, [attention, DIM], ids())
    carried = {p.role: p.carried for p in program.plans}
    values = (False,) * 64 + (True,) * 32
    assert carried["attention.qkv"] == ((True,) * 12 if attention is not DIMS else values)
    assert carried["ffn.up"] == (True,) * 128
    assert carried["attention.output"] is carried["ffn.down"] is None
    inputs = ids()
    found = program.module(**inputs).last_hidden_state
    weights = masked_weights(program)
    module = program.detach()
    expected = functional_call(module, weights, kwargs=inputs).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_a_pruned_unit_has_the_gradient_of_a_factor_on_its_column() -> None:
    program = pruned(FFN(), [DIM], (torch.randn(5, 4, dtype=torch.float64),))
    x = torch.randn(5, 4, dtype=torch.float64)
    program.module(x).square().sum().backward()
    (scores,) = program.score_parameters()
    kept = program.mask_set.block_mask("up.weight").kept_blocks()[:, 0]
    assert 0 < int(kept.sum()) < 6
    module: Any = program.detach()
    factor = kept.double().requires_grad_()
    (x + torch.sigmoid(module.up(x)) @ (module.down.weight * factor).T + module.down.bias).square().sum().backward()
    assert scores.grad is not None
    assert factor.grad is not None
    torch.testing.assert_close(scores.grad[~kept, 0].double(), factor.grad[~kept], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("revive", [True, False])
def test_a_unit_that_is_needed_comes_back_only_with_a_gradient(revive: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model = Gelu()
    wanted = model(x).detach()
    program = compile(model, {"rules": [DIM], "scores": {"revive": revive}}, (x,))
    (scores,) = program.score_parameters()
    with torch.no_grad():
        scores[2] = -4.0
    program.module.train()
    program.set_progress(1.0)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (program.module(x) - wanted).square().mean().backward()
        optimizer.step()
    assert bool(program.masks()["up.weight"][2].all()) is revive


class Seen(FFN):
    """What the first linear makes is read by something else too."""

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.sigmoid(self.up(x))
        return x + self.down(inner) + inner.mean()


def test_what_is_seen_elsewhere_is_not_carried() -> None:
    assert plans(roles_of(FFN(), (torch.randn(2, 4),)), DIM, **REVIVE)["up.weight"].carried == (True,) * 6
    assert plans(roles_of(Seen(), (torch.randn(2, 4),)), DIM, **REVIVE)["up.weight"].carried is None
    up = plans(roles_of(FFN(), (torch.randn(2, 4),)), DIM | {"roles": "ffn.up"}, **REVIVE)["up.weight"]
    assert up.carried is None  # nothing else carries the mask


def test_normalised_queries_carry_their_own() -> None:
    roles = roles_of(hf.Qwen3Model(hf.Qwen3Config(**CAUSAL, head_dim=8)), ids())
    found = by_role(plans(roles, HEADS | {"paired": True}, **REVIVE))
    assert {role: p.carried for role, p in found.items()} == {
        "attention.query": None,
        "attention.key": None,
        "attention.value": (True, True),
        "attention.output": None,
    }

"""The paper's patterns."""

from __future__ import annotations

import pytest

from bpc.spec import PRESETS, load_spec, resolve
from passes.structure.role import Family
from passes.structure.roles import Roles


@pytest.mark.parametrize("preset", ["struct", "movement", "rows-cols", "heads", "dims", "block-4", "block-8"])
def test_presets_fit_every_layout(
    preset: str, bert: Roles, gpt2: Roles, llama: Roles, phi3: Roles, bart: Roles
) -> None:
    for roles in (bert, gpt2, llama, phi3, bart):
        found = resolve(load_spec(preset), roles)
        wanted = [
            r for r in roles if r.role.family is Family.ATTENTION or (r.role.family is Family.FFN and preset != "heads")
        ]
        assert [p.weight for p in found] == [r.weight for r in wanted]


def test_blocks_of_the_presets_are_the_papers() -> None:
    dim, head = ((1, "in_features"), True), (("head_dim", "in_features"), False)
    blocks = {name: [(rule.block, rule.paired) for rule in spec.rules] for name, spec in PRESETS.items()}
    assert blocks["hybrid"] == blocks["hybrid-nt"] == blocks["hybrid-filled"] == [((32, 32), False), dim]
    assert blocks["struct"] == [head, dim]
    assert blocks["heads"] == [head]
    assert blocks["rows-cols"] == [((1, "in_features"), False), dim]
    assert blocks["movement"] == [((1, 1), False)] * 2
    for size in (4, 8, 16):
        assert blocks[f"block-{size}"] == [((size, size), False)] * 2
    assert PRESETS["hybrid-nt"].distillation.weight == 0
    assert blocks["dims"] == [dim, dim]
    assert [name for name, spec in PRESETS.items() if spec.regularization.fragmentation] == ["dims"]
    assert [name for name, spec in PRESETS.items() if spec.fill] == ["hybrid-filled"]

"""Roles are a closed set, and text wherever text is wanted."""

from __future__ import annotations

import copy
import json
import pickle
from fnmatch import fnmatchcase

import pytest

from passes.structure.role import Family, Part, Role


def test_a_role_is_its_name() -> None:
    role = Role.of(Family.FFN, Part.GATE_UP)
    assert role is Role("ffn.gate_up")
    assert (role.family, role.part) == (Family.FFN, Part.GATE_UP)
    assert (f"{role}", repr(("up.weight", role)), json.dumps({role: role})) == (
        "ffn.gate_up",
        "('up.weight', 'ffn.gate_up')",
        '{"ffn.gate_up": "ffn.gate_up"}',
    )
    assert {role: 1}["ffn.gate_up"] == 1
    assert fnmatchcase(role, "ffn.*")


def test_copies_are_the_same_role() -> None:
    for role in Role:
        assert copy.deepcopy(role) is role
        assert pickle.loads(pickle.dumps(role)) is role
        assert Role.of(role.family, role.part) is role


@pytest.mark.parametrize("name", ["attention.up", "ffn", "attention.vk", ""])
def test_other_names_are_no_roles(name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid Role"):
        Role(name)


def test_linears_in_no_block_have_no_part() -> None:
    assert [role for role in Role if role.part is None] == [Role.OTHER]
    assert Role.of(Family.ATTENTION, None) is Role.OTHER
    assert (str(Role.OTHER.family), Role.OTHER.leaves) == ("other", False)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({Part.VALUE, Part.KEY}, "kv"),
        ({Part.VALUE, Part.QUERY, Part.KEY}, "qkv"),
        ({Part.DOWN}, "down"),
        ({Part.OUTPUT, Part.QUERY}, None),
        ({Part.GATE, Part.UP}, None),  # one weight twice, not two halves of one
        (set(), None),
    ],
)
def test_operands_that_share_a_weight_are_one_part(parts: set[Part], expected: str | None) -> None:
    assert Part.of(parts) == expected


def test_only_output_and_down_lead_out_of_a_block() -> None:
    assert {role for role in Role if role.leaves} == {"attention.output", "ffn.down", "mlp.down"}

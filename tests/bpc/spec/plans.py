"""Rules resolved against roles."""

from __future__ import annotations

from typing import Any

from bpc.scores.plan import MaskPlan
from bpc.spec import load_spec, resolve
from passes.structure.roles import Roles

DIM = {"roles": "ffn.*", "block": [1, "in_features"], "paired": True}


HEADS = {"roles": "attention.*", "block": ["head_dim", "in_features"]}

DIMS = {"roles": "attention.*", "block": [1, "in_features"], "paired": True}


def plans(roles: Roles, *rules: dict[str, Any], **settings: Any) -> dict[str, MaskPlan]:
    return {p.weight: p for p in resolve(load_spec({"rules": list(rules), **settings}), roles)}


def by_role(found: dict[str, MaskPlan]) -> dict[str, MaskPlan]:
    return {p.role: p for p in reversed(found.values())}

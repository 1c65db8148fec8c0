"""The names of roles: a family of blocks and the part a linear plays in one, written "family.part".

Names are text wherever text is wanted (patterns of specs, tables, JSON). What a role means is asked of its ``family``
and ``part``, never of its letters.
"""

from __future__ import annotations

from collections.abc import Set
from enum import StrEnum


class Family(StrEnum):
    """What kind of block a linear belongs to."""

    ATTENTION = "attention"
    FFN = "ffn"  # inside a residual connection
    MLP = "mlp"  # the same without one
    OTHER = "other"  # in no block


class Part(StrEnum):
    """What a linear does in its block; operands of an attention that share a weight are named by their initials."""

    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    OUTPUT = "output"
    QK = "qk"
    QV = "qv"
    KV = "kv"
    QKV = "qkv"
    UP = "up"
    GATE = "gate"
    GATE_UP = "gate_up"
    DOWN = "down"

    @property
    def members(self) -> frozenset[Part]:
        """The operands that a fused one is; of every other part itself."""
        return _FUSED.get(self, frozenset({self}))

    @classmethod
    def of(cls, parts: Set[Part]) -> Part | None:
        """The one part of a weight that plays all of ``parts``; None where there is no such part."""
        return next((part for part in cls if part.members == parts), None)


_FUSED = {
    Part.QK: frozenset({Part.QUERY, Part.KEY}),
    Part.QV: frozenset({Part.QUERY, Part.VALUE}),
    Part.KV: frozenset({Part.KEY, Part.VALUE}),
    Part.QKV: frozenset({Part.QUERY, Part.KEY, Part.VALUE}),
}


class Role(StrEnum):
    """A structural role. ``Role("ffn.up")`` is the role of a name; raises ValueError where there is none.

    Equal to its name, and printed as it. ``part`` is None for OTHER alone.
    """

    family: Family
    part: Part | None

    ATTENTION_QUERY = Family.ATTENTION, Part.QUERY
    ATTENTION_KEY = Family.ATTENTION, Part.KEY
    ATTENTION_VALUE = Family.ATTENTION, Part.VALUE
    ATTENTION_OUTPUT = Family.ATTENTION, Part.OUTPUT
    ATTENTION_QK = Family.ATTENTION, Part.QK
    ATTENTION_QV = Family.ATTENTION, Part.QV
    ATTENTION_KV = Family.ATTENTION, Part.KV
    ATTENTION_QKV = Family.ATTENTION, Part.QKV
    FFN_UP = Family.FFN, Part.UP
    FFN_GATE = Family.FFN, Part.GATE
    FFN_GATE_UP = Family.FFN, Part.GATE_UP
    FFN_DOWN = Family.FFN, Part.DOWN
    MLP_UP = Family.MLP, Part.UP
    MLP_GATE = Family.MLP, Part.GATE
    MLP_GATE_UP = Family.MLP, Part.GATE_UP
    MLP_DOWN = Family.MLP, Part.DOWN
    OTHER = Family.OTHER, None

    def __new__(cls, family: Family, part: Part | None) -> Role:
        name = f"{family}.{part}" if part else str(family)
        role = str.__new__(cls, name)
        role._value_ = name
        role.family, role.part = family, part
        return role

    __repr__ = str.__repr__

    @classmethod
    def of(cls, family: Family, part: Part | None) -> Role:
        """The role of a part in a family's blocks; OTHER where there is no part."""
        return next((role for role in cls if part and (role.family, role.part) == (family, part)), cls.OTHER)

    @property
    def leaves(self) -> bool:
        """It leads out of its block: the heads or dims are its input features. Every other part's are its outputs."""
        return self.part in (Part.OUTPUT, Part.DOWN)

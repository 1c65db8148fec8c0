"""The paper's Table 1 (and the two head patterns of Table 8) as specs, and one of dims inside heads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bpc.spec.schema import BlockSize, Distillation, Regularization, Rule, Spec


def _attention(rows: BlockSize, columns: BlockSize) -> Rule:
    return Rule(roles=("attention.*",), block=(rows, columns))


def _ffn(rows: BlockSize, columns: BlockSize) -> Rule:
    return Rule(roles=("ffn.*",), block=(rows, columns))


_FFN_DIM = Rule(roles=("ffn.*",), block=(1, "in_features"), paired=True)
_HEAD = _attention("head_dim", "in_features")

PRESETS: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            Spec(name="hybrid", rules=(_attention(32, 32), _FFN_DIM)),
            Spec(name="hybrid-nt", rules=(_attention(32, 32), _FFN_DIM), distillation=Distillation(weight=0.0)),
            Spec(name="hybrid-filled", rules=(_attention(32, 32), _FFN_DIM), fill=True),
            Spec(name="struct", rules=(_HEAD, _FFN_DIM)),
            Spec(name="block", rules=(_attention(32, 32), _ffn(32, 32))),
            Spec(name="block-16", rules=(_attention(16, 16), _ffn(16, 16))),
            Spec(name="block-8", rules=(_attention(8, 8), _ffn(8, 8))),
            Spec(name="block-4", rules=(_attention(4, 4), _ffn(4, 4))),
            Spec(name="movement", rules=(_attention(1, 1), _ffn(1, 1))),
            Spec(name="rows-cols", rules=(_attention(1, "in_features"), _FFN_DIM)),
            Spec(name="heads", rules=(_HEAD,)),
            Spec(
                name="dims",
                rules=(Rule(roles=("attention.*",), block=(1, "in_features"), paired=True), _FFN_DIM),
                regularization=Regularization(fragmentation=1.0),
            ),
        )
    }
)

"""What hypothesis draws: shapes of small transformers, and masks for them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st

from tests.passes.properties.tiny import ACTIVATIONS, ATTENTIONS, MASK_KINDS, Shape, Transformer, random_masks

ROLES = ("q", "k", "v", "qkv", "out", "up", "gate", "down")


class MaskChoice(NamedTuple):
    """Which kind of mask each weight gets, and the random numbers behind it."""

    kinds: dict[str, str]
    seed: int
    keep: float
    biases: bool

    def of(self, model: Transformer) -> dict[str, torch.Tensor]:
        return random_masks(model, self.kinds, self.seed, self.keep, self.biases)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    kv_heads, group = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (2, 2), (1, 3)]))
    return Shape(
        layers=draw(st.integers(1, 2)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([1, 2, 4, 5])),
        width=draw(st.sampled_from([4, 8, 10])),
        ffn=draw(st.sampled_from([1, 6, 16])),
        fused=draw(st.booleans()),
        gated=draw(st.booleans()),
        bias=draw(st.booleans()),
        rms=draw(st.booleans()),
        pre_norm=draw(st.booleans()),
        attention=draw(st.sampled_from(ATTENTIONS)),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
    )


def mask_choices() -> st.SearchStrategy[MaskChoice]:
    return st.builds(
        MaskChoice,
        st.fixed_dictionaries({role: st.sampled_from(MASK_KINDS) for role in ROLES}),
        st.integers(0, 10_000),
        st.sampled_from([0.2, 0.5, 0.8]),
        st.booleans(),
    )

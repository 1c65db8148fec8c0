"""Plans of a small FFN and of a small attention."""

import torch
from torch import nn

from bpc.scores import MaskPlan, MaskSettings, Schedule
from passes.structure.role import Role


def ffn_plans() -> list[MaskPlan]:
    """up (6 x 4) and down (4 x 6) share one score per dim."""
    common = {"scores": "up.weight", "group": "ffn", "out_dim": 0, "part": "ffn.0"}
    common |= {"units": tuple(range(6)), "unit_count": 6}
    return [
        MaskPlan("up.weight", "up.bias", (6, 4), (1, 4), role=Role.FFN_UP, **common),
        MaskPlan("down.weight", None, (4, 6), (4, 1), role=Role.FFN_DOWN, **common),
    ]


def attention_plans() -> list[MaskPlan]:
    """Four heads of two dims, blocks of 2 x 2."""
    plans = []
    for name in ("query", "key", "value", "output"):
        weight = f"{name}.weight"
        plans.append(
            MaskPlan(weight, f"{name}.bias", (8, 8), (2, 2), weight, 0, Role(f"attention.{name}"), "attention",
                     part="attention.0", heads=4)
        )  # fmt: skip
    return plans


class FFN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


SETTINGS = MaskSettings(schedule=Schedule(0.0, 0.1, 0.0, 0.0), regularization={"ffn": 20.0, "attention": 10.0})

"""Operands that are usually parameters, computed from the data: kernels, tables, affines, biases, indices, masks."""

from __future__ import annotations

from tests.fuzz.template import Template, each

POOLED = "t{i} = self.h{i}({b}.mean((0, 1)))\n"


def generated(size: str) -> tuple[str, ...]:
    return (f"self.h{{i}} = nn.Linear({{D}}, {size})",)


TEMPLATES = {
    "weight": Template(
        POOLED + "F.linear({a}, t{i}.view({W}, {C}) * 0.5)",
        generated("{W} * {C}"),
        out="W",
        other="any",
        draws={"W": (4, 6)},
        weight=2,
    ),
    "weight and bias": Template(
        POOLED + "F.linear({a}, t{i}[: 4 * {C}].view(4, {C}) * 0.5, t{i}[4 * {C} :])",
        generated("4 * {C} + 4"),
        out="4",
        other="any",
        weight=2,
    ),
    "bias": Template(
        POOLED + "F.linear({a}, self.w{i}, t{i})",
        (*generated("6"), "self.w{i} = nn.Parameter(torch.randn(6, {C}))"),
        out="6",
        other="any",
    ),
    "kernel": Template(
        POOLED + "F.conv1d({a}.transpose(1, 2), t{i}.view({W}, {C}, 3) * 0.3, padding=1).transpose(1, 2)",
        generated("{W} * {C} * 3"),
        out="W",
        other="any",
        draws={"W": (4, 6)},
        weight=2,
    ),
    "kernel bias": Template(
        POOLED + "F.conv1d({a}.transpose(1, 2), self.w{i}, t{i}, padding=1).transpose(1, 2)",
        (*generated("6"), "self.w{i} = nn.Parameter(torch.randn(6, {C}, 3))"),
        out="6",
        other="any",
    ),
    "depthwise kernel": Template(
        POOLED + "F.conv1d({a}.transpose(1, 2), t{i}.view({C}, 1, 3), padding=1, groups={C}).transpose(1, 2)",
        generated("{C} * 3"),
        other="any",
    ),
    "table": Template(
        POOLED + "F.embedding(ids, t{i}.view(11, 6))",
        generated("66"),
        out="6",
        other="any",
        weight=2,
    ),
    "table and index": Template(
        POOLED + "F.embedding({a}.argmax(-1), t{i}.view({C}, 6))",
        generated("{C} * 6"),
        out="6",
        other="any",
    ),
    "layer_norm": Template(
        POOLED + "F.layer_norm({a}, ({C},), t{i}[:{C}], t{i}[{C}:])",
        generated("2 * {C}"),
        other="any",
        weight=2,
    ),
    "layer_norm weight": Template(POOLED + "F.layer_norm({a}, ({C},), t{i})", generated("{C}"), other="any"),
    "rms_norm": Template(POOLED + "F.rms_norm({a}, ({C},), t{i})", generated("{C}"), other="any"),
    "group_norm": Template(
        POOLED + "F.group_norm({a}.transpose(1, 2), 2, t{i}, t{i} + 1).transpose(1, 2)",
        generated("{C}"),
        other="any",
        needs="C % 2 == 0",
    ),
    "batch_norm": Template(
        POOLED + "F.batch_norm({a}.transpose(1, 2), t{i}, t{i}.abs() + 1, t{i} * 2, t{i} + 1).transpose(1, 2)",
        generated("{C}"),
        other="any",
    ),
    "batch_norm affine": Template(
        POOLED + "F.batch_norm({a}.transpose(1, 2), self.m{i}, self.v{i}, t{i}, t{i}).transpose(1, 2)",
        (
            *generated("{C}"),
            'self.register_buffer("m{i}", torch.randn({C}))',
            'self.register_buffer("v{i}", torch.ones({C}))',
        ),
        other="any",
    ),
    "prelu": Template(POOLED + "F.prelu({a}.transpose(1, 2), t{i}).transpose(1, 2)", generated("{C}"), other="any"),
    "modulated": Template(
        "s{i}, h{i} = self.h{i}({b}).chunk(2, -1)\n{a} * (1 + s{i}) + h{i}",
        generated("2 * {C}"),
        other="any",
        weight=1.5,
    ),
    "per example": Template(
        "{a} @ self.h{i}({b}.mean(1)).view(B, {C}, 4) * 0.5", generated("{C} * 4"), out="4", other="any"
    ),
    "per position": Template(
        "(self.h{i}({b}).view(B, T, 4, {C}) @ {a}.unsqueeze(-1)).squeeze(-1) * 0.5",
        generated("4 * {C}"),
        out="4",
        other="any",
    ),
    "pointwise by one": Template("{a} * self.h{i}({b})", generated("1"), other="any"),
    **each(
        "torch.bmm(torch.bmm({a}, {b}.transpose(1, 2)), {b}) * 0.05",
        "({a}.mT @ {b}).unsqueeze(1).mean(2) + {a}",
        "{a} @ ({a}.mT @ {b}) * 0.05",
        "torch.baddbmm({a}, {a} @ {b}.mT, {b}, alpha=0.1)",
        "({a}.unsqueeze(-1) * {b}.unsqueeze(-2)).mean(-1)",
        "({a}.unsqueeze(-1) @ {b}.unsqueeze(-2)).amax(-2)",
        "torch.einsum('btc,bsc->bts', {a}, {b}).softmax(-1) @ {a}",
        "torch.einsum('btc,btd->bcd', {a}, {b}).mean(1, keepdim=True) + {b}",
        "{a}.index_select(-1, {b}.mean((0, 1)).argsort())",
        "{a}.index_select(1, {b}[0, :, 0].argsort())",
        "{a}[..., {b}.mean((0, 1)).argsort()]",
        "{a}[torch.arange(B), {b}[..., 0].argmax(1)].unsqueeze(1) + {b}",
        "torch.searchsorted({a}.sort(-1).values, {b}).double()",
        "torch.bucketize({a}, torch.tensor([-0.5, 0.0, 0.5], dtype={a}.dtype)).double() + {b}",
        "{a} * {b}.mean((0, 1)).argmax()",
        "torch.where({b}.mean() > 0, {a}, {b})",
        "{a}.masked_fill(({b}.mean((0, 1)) > 0), 0.5)",
        "{a}.clamp({b} - 1, {b} + 1)",
        "{a}.clamp(max={b}.amax(1, keepdim=True))",
        "{a}.scatter(1, {b}.argsort(1), {b})",
        "torch.polar({a}.abs(), {b}).real",
        "torch.view_as_real(torch.complex({a}, {b}) ** 2).sum(-1) * 0.1",
        "torch.fft.rfft({a}, dim=1).abs()[:, :1] + {b}",
        "torch.linalg.solve(torch.eye({C}, dtype={a}.dtype) * 9 + {b}[0, :1].mT @ {b}[0, :1], {a}.mT).mT",
        "torch.cross({a}[..., :3], {b}[..., -3:], dim=-1).repeat(1, 1, {C})[..., :{C}]",
        needs="C > 2",
    ),
}

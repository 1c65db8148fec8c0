"""Layers with weights of their own: linears, convolutions, feed-forwards, embeddings, experts."""

from __future__ import annotations

from tests.fuzz.template import VOCABULARY, Template, each

LINEAR = "self.l{i} = nn.Linear({C}, {W}, bias={bias})"
WIDTHS = {"W": (4, 6, 8), "bias": (True, True, False)}

TEMPLATES = {
    "linear": Template("self.l{i}({a})", (LINEAR,), out="W", draws=WIDTHS, weight=9),
    "linear twice": Template("self.l{j}({a})", out="F", needs="E == C", shares="layers: linear", weight=2),
    "linear, rows and columns": Template(
        "self.l{j}({a}).relu() @ self.l{j}.weight", out="E", needs="E == C", shares="layers: linear"
    ),
    "linear transposed": Template(
        "F.linear({a}, self.l{j}.weight.t())", out="E", needs="F == C", shares="layers: linear"
    ),
    "feed-forward": Template(
        "self.d{i}(self.u{i}({a}).relu()) + {a}",
        ("self.u{i} = nn.Linear({C}, 8)", "self.d{i} = nn.Linear(8, {C})"),
        weight=3,
    ),
    "gated feed-forward": Template(
        "self.d{i}(F.silu(self.g{i}({a})) * self.u{i}({b}))",
        ("self.g{i} = nn.Linear({C}, 6)", "self.u{i} = nn.Linear({C}, 6)", "self.d{i} = nn.Linear(6, {C}, bias=False)"),
        weight=2,
    ),
    "fused gate": Template(
        "g{i}, u{i} = self.u{i}({a}).chunk(2, -1)\nself.d{i}(F.gelu(g{i}) * u{i})",
        ("self.u{i} = nn.Linear({C}, 12)", "self.d{i} = nn.Linear(6, {C})"),
        weight=2,
    ),
    "to one": Template("self.l{i}({a}).expand(-1, -1, {C}) * {b}", ("self.l{i} = nn.Linear({C}, 1)",)),
    "to one, expand_as": Template("self.l{i}({a}).expand_as({b})", ("self.l{i} = nn.Linear({C}, 1)",)),
    "sequential": Template(
        "self.s{i}({a})",
        ("self.s{i} = nn.Sequential(nn.Linear({C}, 6), nn.{act}(), nn.Dropout(0.1), nn.Linear(6, {C}))",),
        draws={"act": ("ReLU", "GELU", "Tanh", "Sigmoid")},
        weight=2,
    ),
    "low rank": Template(
        "self.l{i}({a}) + self.q{i}(self.p{i}({a})) * 0.5",
        (
            "self.l{i} = nn.Linear({C}, {C})",
            "self.p{i} = nn.Linear({C}, 2, bias=False)",
            "self.q{i} = nn.Linear(2, {C}, bias=False)",
        ),
    ),
    "dead layer": Template("t{i} = self.l{i}({a})\n{a} + 1", ("self.l{i} = nn.Linear({C}, 6)",)),
    "layer times nothing": Template("{a} + self.l{i}({b}) * 0", ("self.l{i} = nn.Linear({C}, {C})",)),
    "layer times zeros": Template(
        "{a} + self.l{i}({b}) * self.z{i}",
        ("self.l{i} = nn.Linear({C}, {C})", 'self.register_buffer("z{i}", (torch.arange({C}) % 2).double())'),
    ),
    "conv": Template(
        "self.c{i}({a}.transpose(1, 2)).transpose(1, 2)",
        ("self.c{i} = nn.Conv1d({C}, {W}, {k}, padding={k} // 2, bias={bias})",),
        out="W",
        draws={**WIDTHS, "k": (1, 3)},
        weight=2,
    ),
    "conv padding": Template(
        "self.c{i}({a}.transpose(1, 2)).transpose(1, 2)",
        ("self.c{i} = nn.Conv1d({C}, {C}, 3, padding='same', padding_mode='{mode}')",),
        draws={"mode": ("zeros", "circular", "replicate")},
    ),
    "depthwise conv": Template(
        "self.c{i}({a}.transpose(1, 2)).transpose(1, 2)",
        ("self.c{i} = nn.Conv1d({C}, {C}, 3, padding=1, groups={C}, bias={bias})",),
        draws={"bias": (True, False)},
    ),
    "causal conv": Template(
        "self.c{i}({a}.transpose(1, 2))[..., :T].transpose(1, 2)",
        ("self.c{i} = nn.Conv1d({C}, {C}, 3, padding=2, groups={C})",),
    ),
    "grouped conv": Template(
        "self.c{i}({a}.transpose(1, 2)).transpose(1, 2)",
        ("self.c{i} = nn.Conv1d({C}, {C}, 3, padding=1, groups=2)",),
        needs="C % 2 == 0",
    ),
    "transposed conv": Template(
        "self.c{i}({a}.transpose(1, 2)).transpose(1, 2)",
        ("self.c{i} = nn.ConvTranspose1d({C}, {W}, 3, padding=1)",),
        out="W",
        draws={"W": (4, 6)},
    ),
    "conv over the batch": Template(
        "self.c{i}({a}.permute(1, 2, 0)).permute(2, 0, 1)",
        ("self.c{i} = nn.Conv1d({C}, {C}, 3, padding=1)",),
    ),
    "conv 2d": Template(
        "self.c{i}({a}.unsqueeze(1)).mean(1)",
        ("self.c{i} = nn.Conv2d(1, 2, 3, padding=1)",),
    ),
    "conv 2d channels": Template(
        "self.c{i}({a}.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)",
        ("self.c{i} = nn.Conv2d({C}, {W}, 1)",),
        out="W",
        draws={"W": (4, 6)},
    ),
    **each(
        "F.max_pool1d({a}.transpose(1, 2), 3, 1, 1).transpose(1, 2)",
        "F.avg_pool1d({a}.transpose(1, 2), 3, 1, 1).transpose(1, 2)",
        "F.avg_pool1d({a}, 3, 1, 1)",
        "F.adaptive_avg_pool1d({a}.transpose(1, 2), 1).transpose(1, 2) + {b}",
        "F.adaptive_max_pool1d({a}.transpose(1, 2), 1).transpose(1, 2) + {b}",
        "F.interpolate({a}.transpose(1, 2), scale_factor=2.0)[..., :T].transpose(1, 2)",
        "F.interpolate({a}.unsqueeze(1), scale_factor=(1.0, 2.0), mode='bilinear')[:, 0, :, :{C}]",
        "F.pixel_shuffle({a}.transpose(1, 2).unsqueeze(-1), 1)[..., 0].transpose(1, 2)",
        "F.local_response_norm({a}.transpose(1, 2), 2).transpose(1, 2)",
        "F.lp_pool1d({a}.abs().transpose(1, 2) + 0.1, 2, 1).transpose(1, 2)",
    ),
    "embedding": Template(
        "self.e{i}(ids) + {a}",
        (f"self.e{{i}} = nn.Embedding({VOCABULARY}, {{C}}{{padding}})",),
        draws={"padding": ("", ", padding_idx=0")},
        weight=2,
    ),
    "embedding, tied head": Template(
        "F.linear({a} + self.e{i}(ids), self.e{i}.weight) @ self.e{i}.weight * 0.1",
        (f"self.e{{i}} = nn.Embedding({VOCABULARY}, {{C}})",),
    ),
    "codebook": Template(
        "self.e{i}({a}.argmax(-1))", ("self.e{i} = nn.Embedding({C}, {W})",), out="W", draws={"W": (4, 6)}
    ),
    "soft codebook": Template("{a}.softmax(-1) @ self.e{i}.weight", ("self.e{i} = nn.Embedding({C}, 6)",), out="6"),
    "buckets": Template(
        "self.e{i}((self.l{i}({a}).squeeze(-1).sigmoid() * 7).long())",
        ("self.l{i} = nn.Linear({C}, 1)", "self.e{i} = nn.Embedding(8, {W})"),
        out="W",
        draws={"W": (4, 6)},
    ),
    "positions": Template("{a} + self.e{i}(torch.arange(T))", ("self.e{i} = nn.Embedding(32, {C})",)),
    "positions counted": Template(
        "{a} + self.e{i}(visible.cumsum(-1) - visible.long())", ("self.e{i} = nn.Embedding(32, {C})",)
    ),
    "positions sliced": Template("{a} + self.p{i}[:T]", ("self.p{i} = nn.Parameter(torch.randn(32, {C}))",)),
    "embedding per channel": Template(
        "self.e{i}(({a} > 0).long()).sum(2)",
        ("self.e{i} = nn.Embedding(2, {W})",),
        out="W",
        draws={"W": (4, 6)},
    ),
    "experts": Template(
        "r{i} = self.r{i}({a}).softmax(-1)\n"
        "(torch.stack([f({b}) for f in self.f{i}], -1) * r{i}.unsqueeze(-2)).sum(-1)",
        ("self.r{i} = nn.Linear({C}, 2)", "self.f{i} = nn.ModuleList(nn.Linear({C}, 6) for _ in range(2))"),
        out="6",
        weight=1.5,
    ),
    "stacked experts": Template(
        "torch.einsum('btc,ecd->bted', {a}, self.w{i}).relu().mul(self.r{i}({a}).softmax(-1).unsqueeze(-1)).sum(2)",
        ("self.r{i} = nn.Linear({C}, 2)", "self.w{i} = nn.Parameter(torch.randn(2, {C}, 6))"),
        out="6",
    ),
    "one expert each": Template(
        "torch.bmm({a}.reshape(-1, 1, {C}), self.w{i}[self.r{i}({a}).argmax(-1).flatten()]).view(B, T, 6)",
        ("self.r{i} = nn.Linear({C}, 2)", "self.w{i} = nn.Parameter(torch.randn(2, {C}, 6))"),
        out="6",
    ),
    "bilinear": Template("self.b{i}({a}, {b})", ("self.b{i} = nn.Bilinear({C}, {D}, 4)",), out="4", other="any"),
    "recurrence": Template(
        "h{i} = torch.zeros_like({a}[:, 0])\nfor t in range(2):\n    h{i} = self.l{i}(h{i}).tanh() + {a}[:, 0]\n"
        "h{i}.unsqueeze(1) + {b}",
        ("self.l{i} = nn.Linear({C}, {C})",),
    ),
}

"""Attention: fused and written out, masked, grouped, rotated, packed, with normalised or biased scores."""

from __future__ import annotations

from tests.fuzz.template import Template

HEADS, DIM = 2, 4
SPLIT = (
    f"q{{i}} = self.q{{i}}({{a}}).view(B, T, {HEADS}, {DIM}).transpose(1, 2)\n"
    f"k{{i}} = self.k{{i}}({{b}}).view(B, T, {{K}}, {DIM}).transpose(1, 2)\n"
    f"v{{i}} = self.v{{i}}({{b}}).view(B, T, {{K}}, {DIM}).transpose(1, 2)\n"
)
GROUPS = {"K": (1, 2, 2)}
REPEATS = {
    "expand": f"k{{i}}, v{{i}} = (t.expand(B, {HEADS}, T, {DIM}) for t in (k{{i}}, v{{i}}))\n",
    "repeat": f"k{{i}}, v{{i}} = (t.repeat_interleave({HEADS} // {{K}}, 1) for t in (k{{i}}, v{{i}}))\n",
    "reshape": f"k{{i}}, v{{i}} = (t[:, :, None].expand(B, {{K}}, {HEADS} // {{K}}, T, {DIM})"
    f".reshape(B, {HEADS}, T, {DIM}) for t in (k{{i}}, v{{i}}))\n",
}
JOIN = f"self.o{{i}}(o{{i}}.transpose(1, 2).reshape(B, T, {HEADS * DIM}))"
CAUSAL = "torch.ones(T, T, dtype=torch.bool).tril()"
VISIBLE = "visible[:, None, None, :]"
ROPE = (
    "f{i} = torch.outer(torch.arange(T).double(), self.f{i})[None, None]\n"
    "q{i}, k{i} = (torch.cat([t[..., :2] * f{i}.cos() - t[..., 2:] * f{i}.sin(), "
    "t[..., 2:] * f{i}.cos() + t[..., :2] * f{i}.sin()], -1) for t in (q{i}, k{i}))\n"
)
ROTATE = (
    "f{i} = torch.outer(torch.arange(T).double(), self.f{i}).repeat_interleave(2, -1)[None, None]\n"
    "q{i}, k{i} = (t * f{i}.cos() + torch.stack([-t[..., 1::2], t[..., ::2]], -1).flatten(-2) * f{i}.sin() "
    "for t in (q{i}, k{i}))\n"
)
RATES = ('self.register_buffer("f{i}", torch.tensor([1.0, 0.1]))',)


def attention(mixed: str, *between: str, init: tuple[str, ...] = (), **rest: object) -> Template:
    """Projections, what happens between, ``mixed`` (B, H, T, D), the output projection. K key and value heads."""
    layers = (
        f"self.q{{i}} = nn.Linear({{C}}, {HEADS * DIM}, bias={{bias}})",
        f"self.k{{i}} = nn.Linear({{D}}, {DIM} * {{K}}, bias={{bias}})",
        f"self.v{{i}} = nn.Linear({{D}}, {DIM} * {{K}}, bias={{bias}})",
        f"self.o{{i}} = nn.Linear({HEADS * DIM}, {{C}})",
    )
    code = f"{SPLIT}{''.join(between)}o{{i}} = {mixed}\n{JOIN}"
    draws = {**GROUPS, "bias": (True, False)} | rest.pop("draws", {})  # type: ignore[operator]
    return Template(code, (*layers, *init), other="any", draws=draws, **rest)  # type: ignore[arg-type]


def fused(mask: str = "", *between: str, **rest: object) -> Template:
    gqa = ", enable_gqa=True" if not between or between[-1] not in REPEATS.values() else ""
    return attention(f"F.scaled_dot_product_attention(q{{i}}, k{{i}}, v{{i}}{mask}{gqa})", *between, **rest)  # type: ignore[arg-type]


def written(scores: str, *between: str, probs: str = "s{i}.softmax(-1)", **rest: object) -> Template:
    """``scores``: what happens to the scores s before the softmax."""
    lines = "s{i} = q{i} @ k{i}.transpose(-1, -2) * 0.5\n" + scores
    return attention(f"{probs} @ v{{i}}", REPEATS["expand"], *between, lines, **rest)  # type: ignore[arg-type]


TEMPLATES = {
    "sdpa": fused(weight=2),
    "sdpa causal": fused(", is_causal=True"),
    "sdpa padding": fused(f", {VISIBLE}"),
    "sdpa causal and padding": fused(f", {CAUSAL} & {VISIBLE}"),
    "sdpa float mask": fused(", torch.zeros(B, 1, 1, T, dtype=x.dtype).masked_fill(~visible[:, None, None], -1e9)"),
    "sdpa scale": fused(", scale=0.3"),
    "sdpa bias from data": fused(
        ", self.m{i}({b}).transpose(1, 2).unsqueeze(2)", init=(f"self.m{{i}} = nn.Linear({{D}}, {HEADS})",), weight=1.5
    ),
    "sdpa mask from data": fused(
        ", (self.m{i}({b}) > -0.5).transpose(1, 2).unsqueeze(2) | torch.eye(T, dtype=torch.bool)",
        init=(f"self.m{{i}} = nn.Linear({{D}}, {HEADS})",),
    ),
    "sdpa bias parameter": fused(", self.m{i}.view(1, 2, 1, 1)", init=("self.m{i} = nn.Parameter(torch.randn(2))",)),
    "sdpa repeat": fused("", REPEATS["repeat"]),
    "sdpa reshape": fused(", is_causal=True", REPEATS["reshape"]),
    "sdpa rope": fused(", is_causal=True", ROPE, init=RATES),
    "sdpa rotate": fused("", ROTATE, init=RATES),
    "sdpa qk norm": fused(
        "", "q{i}, k{i} = self.n{i}(q{i}), self.n{i}(k{i})\n", init=(f"self.n{{i}} = nn.RMSNorm({DIM})",)
    ),
    "sdpa scaled queries": fused(
        "",
        "q{i} = q{i} * self.g{i}.view(1, 2, 1, -1).exp()\n",
        init=(f"self.g{{i}} = nn.Parameter(torch.randn(2, {DIM}))",),
    ),
    "sdpa one key head": attention(
        "F.scaled_dot_product_attention(q{i}, k{i}[:, :1], v{i})", REPEATS["repeat"], draws={"K": (2,)}, weight=0.5
    ),
    "sdpa dropout": fused(", dropout_p=0.3", random=True, weight=0.1),
    "sdpa no heads": Template(
        "F.scaled_dot_product_attention(self.q{i}({a}), self.k{i}({b}), {b})",
        ("self.q{i} = nn.Linear({C}, 4)", "self.k{i} = nn.Linear({D}, 4)"),
        out="D",
        other="any",
    ),
    "written": written("", weight=2),
    "written causal": written(f"s{{i}} = s{{i}}.masked_fill(~{CAUSAL}, float('-inf'))\n", weight=1.5),
    "written where": written(f"s{{i}} = torch.where({VISIBLE}, s{{i}}, torch.finfo(s{{i}}.dtype).min)\n"),
    "written added mask": written(f"s{{i}} = s{{i}} + (1 - {VISIBLE}.double()) * -1e9\n"),
    "written small fill": written(f"s{{i}} = s{{i}}.masked_fill(~{VISIBLE}, -3.0)\n"),
    "written bias": written(
        "s{i} = s{i} + self.m{i}({b}).transpose(1, 2).unsqueeze(2)\n",
        init=(f"self.m{{i}} = nn.Linear({{D}}, {HEADS})",),
        weight=1.5,
    ),
    "written row bias": written(
        "s{i} = s{i} + self.m{i}({a}).transpose(1, 2).unsqueeze(-1)\n",
        init=(f"self.m{{i}} = nn.Linear({{C}}, {HEADS})",),
        weight=1.5,
    ),
    "written product": written(
        "s{i} = s{i} * self.m{i}({a}).transpose(1, 2).unsqueeze(-1)\n",
        init=(f"self.m{{i}} = nn.Linear({{C}}, {HEADS})",),
    ),
    "written softcap": written("s{i} = torch.tanh(s{i} / 2) * 2\n"),
    "written alibi": written("s{i} = s{i} - (torch.arange(T)[:, None] - torch.arange(T)).abs() * 0.1\n"),
    "written float": written("", probs="s{i}.float().softmax(-1).double()", coarse=6e-8),
    "written to int": written("", probs="(s{i}.softmax(-1) * 3).to(torch.int32).to(x.dtype)", weight=0.7),
    "written dropout": written("", probs="F.dropout(s{i}.softmax(-1), 0.3, training=False)"),
    "written active dropout": written(
        "", probs="F.dropout(s{i}.softmax(-1), 0.3, training=True)", random=True, weight=0.1
    ),
    "written other softmax": written("", probs="s{i}.softmax(-2)"),
    "written softmax over heads": written("", probs="s{i}.softmax(1)"),
    "written relu": written("", probs="s{i}.relu()"),
    "written twice read": written("t{i} = s{i}.mean((1, 2)).unsqueeze(-1)\n", probs="s{i}.softmax(-1)", weight=0.7),
    "written halved": written("", probs="(s{i}.softmax(-1) * 0.5)"),
    "written masked after": written("", probs=f"(s{{i}}.softmax(-1) * {VISIBLE})"),
    "written renormalised": written(
        "p{i} = s{i}.softmax(-1) * visible[:, None, None]\n", probs="(p{i} / p{i}.sum(-1, keepdim=True))"
    ),
    "written head mixing": written(
        "s{i} = torch.einsum('bhts,hg->bgts', s{i}, self.m{i})\n",
        init=(f"self.m{{i}} = nn.Parameter(torch.randn({HEADS}, {HEADS}))",),
    ),
    "written rope": written("", ROPE, init=RATES),
    "linear attention": attention(
        "q{i}.softmax(-1) @ (k{i}.softmax(-2).transpose(-1, -2) @ v{i})",
        REPEATS["expand"],
    ),
    "gated heads": attention(
        "(q{i} @ k{i}.mT).softmax(-1) @ v{i} * self.g{i}({a}).sigmoid().transpose(1, 2).unsqueeze(-1)",
        REPEATS["reshape"],
        init=(f"self.g{{i}} = nn.Linear({{C}}, {HEADS})",),
    ),
    "values read twice": attention(
        "(q{i} @ k{i}.mT).softmax(-1) @ v{i} + v{i} * 0.5",
        REPEATS["reshape"],
    ),
    "bmm": attention(
        f"torch.bmm(torch.bmm(q{{i}}, k{{i}}.transpose(1, 2)).softmax(-1), v{{i}}).view(B, {HEADS}, T, {DIM})",
        REPEATS["repeat"],
        f"q{{i}}, k{{i}}, v{{i}} = (t.reshape(-1, T, {DIM}) for t in (q{{i}}, k{{i}}, v{{i}}))\n",
    ),
    "packed": Template(
        f"q{{i}}, k{{i}}, v{{i}} = self.p{{i}}({{a}}).view(B, T, 3, {HEADS}, {DIM}).permute(2, 0, 3, 1, 4)\n"
        "o{i} = F.scaled_dot_product_attention(q{i}, k{i}, v{i})\n" + JOIN,
        (f"self.p{{i}} = nn.Linear({{C}}, {3 * HEADS * DIM})", f"self.o{{i}} = nn.Linear({HEADS * DIM}, {{C}})"),
        weight=1.5,
    ),
    "packed per head": Template(
        f"q{{i}}, k{{i}}, v{{i}} = self.p{{i}}({{a}}).view(B, T, {HEADS}, {3 * DIM}).transpose(1, 2).chunk(3, -1)\n"
        "o{i} = (q{i} @ k{i}.mT).softmax(-1) @ v{i}\n" + JOIN,
        (f"self.p{{i}} = nn.Linear({{C}}, {3 * HEADS * DIM})", f"self.o{{i}} = nn.Linear({HEADS * DIM}, {{C}})"),
    ),
    "module": Template(
        "self.a{i}({a}, {b}, {b}, need_weights={n}{mask})[0]",
        ("self.a{i} = nn.MultiheadAttention({C}, 2, bias={bias}, batch_first=True)",),
        needs="C % 2 == 0",
        draws={"bias": (True, False), "n": (True, False), "mask": ("", ", key_padding_mask=~visible")},
        weight=1.5,
    ),
    "encoder layer": Template(
        "self.a{i}({a})",
        ("self.a{i} = nn.TransformerEncoderLayer({C}, 2, 8, batch_first=True, norm_first={n})",),
        needs="C % 2 == 0",
        draws={"n": (True, False)},
    ),
}

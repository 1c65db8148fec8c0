"""In-place operators, views written in place, and operators that return their input where something is written."""

from __future__ import annotations

from tests.fuzz.template import Template

COPY = "t{i} = {a}.clone()\n"
FRESH = "t{i} = {a} * 2\n"


def written(*codes: str, start: str = COPY, **rest: object) -> dict[str, Template]:
    """t starts as a copy of a, is written, and is the result."""
    return {code + " " * (start is FRESH): Template(f"{start}{code}\nt{{i}}", **rest) for code in codes}  # type: ignore[arg-type]


TEMPLATES = {
    **written(
        "t{i}.add_({b})",
        "t{i}.mul_({b}.sigmoid())",
        "t{i} += {b}",
        "t{i} *= 0.5",
        "t{i}.relu_()",
        "t{i}.clamp_(min=0)",
        "F.relu(t{i}, inplace=True)",
        "F.silu(t{i}, inplace=True)",
        "t{i}.masked_fill_({b} > 0.5, 0.25)",
        "t{i}.copy_({b})",
        "t{i}.fill_(0.5)",
        "t{i}.zero_()",
        "t{i}[..., :2] = 0",
        "t{i}[..., 1] = {b}[..., 0]",
        "t{i}[..., 1:3].mul_(2)",
        "t{i}[..., ::2] = {b}[..., ::2]",
        "t{i}[..., 0].add_(1)",
        "t{i}[:, 0] = {b}[:, 0]",
        "t{i}[:, 0, 0] = 1.0",
        "t{i}[:, 1:] += {b}[:, :-1]",
        "t{i}[{b} > 0] = 0.5",
        "t{i}[..., [0, 1]] = {b}[..., [1, 0]]",
        "t{i}.transpose(1, 2).sub_({b}.transpose(1, 2))",
        "t{i}.view(B, -1).add_(1)",
        "t{i}.view(-1)[0] = 3.0",
        "t{i}.flatten(1).mul_(0.5)",
        "t{i}.unsqueeze(0).add_({b})",
        "t{i}.select(2, 1).zero_()",
        "t{i}.narrow(-1, 0, 2).copy_({b}[..., :2])",
        "t{i}.chunk(2, -1)[0].add_(1)",
        "t{i}.unbind(-1)[0].mul_(3)",
        "t{i}.split(2, -1)[0].zero_()",
        "t{i}.index_fill_(-1, torch.tensor([0]), 0.5)",
        "t{i}.index_add_(-1, torch.tensor([0, 1]), {b}[..., :2])",
        "t{i}.scatter_(-1, {b}.argmax(-1, keepdim=True), 0.5)",
        "t{i}.index_put_((torch.arange(B),), {b})",
        "t{i}.tril_()",
        "t{i}.transpose_(1, 2)\nt{i}.transpose_(1, 2)",
        "t{i}.unsqueeze_(0)\nt{i}.squeeze_(0)",
        "t{i}.add_(t{i})",
        "t{i}.mul_(t{i}[:, :1].clone())",
        "t{i}.add_({a})",
        "t{i}.diagonal(dim1=1, dim2=2).fill_(0.5)",
        needs="C > 2",
    ),
    **written(
        "F.dropout(t{i}, 0.5, training=False).add_({b})",
        "u{i} = F.dropout(t{i}, 0.5, training=False)\nu{i}.mul_(2)",
        "u{i} = F.dropout(t{i}, 0.5, training=False, inplace=True)\nu{i}.add_(1)",
        "u{i} = self.d{i}(t{i})\nu{i} += {b}",
        "u{i} = F.alpha_dropout(t{i}, 0.5, training=False)\nu{i}.sub_({b})",
        "u{i} = t{i}.contiguous()\nu{i}.add_(1)",
        "u{i} = t{i}.to({a}.dtype)\nu{i}.add_(1)",
        "u{i} = t{i}.double()\nu{i}.mul_({b})",
        "u{i} = t{i}.type_as({b})\nu{i}.zero_()",
        "u{i} = t{i}.reshape(B, T, {C})\nu{i}.add_({b})",
        "u{i} = t{i}.detach()\nu{i}.mul_(0.5)",
        "u{i} = t{i}.expand(B, T, {C})\nu{i}.add_(1)",
        "u{i} = t{i}.view_as({b})\nu{i}.neg_()",
        "u{i} = t{i}.squeeze(0) if False else t{i}\nu{i}.add_(1)",
        "u{i} = nn.Identity()(t{i})\nu{i}[..., 0] = 0",
        "u{i} = t{i}[...]\nu{i}.add_(1)",
        "u{i} = torch.ops.aten.alias(t{i})\nu{i}.add_(1)",
        "u{i} = t{i}.transpose(1, 2).contiguous()\nu{i}.add_(1)",
        "u{i} = t{i} + {b}\nt{i}.add_(1)\nt{i} = t{i} * u{i}",
        "u{i} = t{i}[..., :2]\nt{i}.add_(1)\nt{i} = torch.cat([u{i}, t{i}[..., 2:]], -1)",
        "u{i} = t{i}.transpose(1, 2)\nt{i}.mul_(2)\nt{i} = t{i} + u{i}.transpose(1, 2)",
        init=("self.d{i} = nn.Dropout(0.5)",),
        start=FRESH,
        needs="C > 2",
    ),
    "written zeros": Template("t{i} = torch.zeros_like({a})\nt{i}[..., 1:] = {b}[..., 1:]\nt{i}"),
    "written list": Template(
        "t{i} = {a}.new_zeros(B, T, {C})\nfor c in range({C}):\n    t{i}[..., c] = {b}[..., c] * c\nt{i}"
    ),
    "accumulated": Template("t{i} = torch.zeros_like({a})\nfor u in ({a}, {b}):\n    t{i} += u\nt{i}"),
    "in-place activation module": Template(
        "self.r{i}(self.l{i}({a}))", ("self.l{i} = nn.Linear({C}, 6)", "self.r{i} = nn.ReLU(inplace=True)"), out="6"
    ),
    "buffer written": Template(
        "t{i} = self.z{i} + {a}\nt{i}.add_(1)\nt{i}", ('self.register_buffer("z{i}", torch.ones({C}))',)
    ),
    "out=": Template("t{i} = torch.empty_like({a})\ntorch.add({a}, {b}, out=t{i})\nt{i}"),
}

"""What a family is: a tiny random model, example inputs, and its prunable structure written down by hand.

Weights are scaled so that every parameter moves the output (exactness trap 20). Sizes: 32 channels, 4 heads of 8, 48
FFN units, one or two layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.passes.family_structure import Attention, FeedForward, Part

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """``build(attention implementation)`` makes the model; ``inputs()`` an example.

    ``inert``: parameters that cannot move the output (a key bias shifts a softmax row), as name endings.
    """

    build: Callable[[str], nn.Module]
    inputs: Callable[[], Inputs]
    attention: tuple[Attention, ...] = ()
    feed_forward: tuple[FeedForward, ...] = ()
    forms: tuple[str, ...] = ("sdpa", "eager")
    inert: tuple[str, ...] = ()


def make(family: Family, form: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, dict[str, Any]]:
    """A scaled model in eval mode and its example inputs, the same numbers on every call."""
    torch.manual_seed(0)
    model = family.build(form).to(dtype).eval()
    scale_parameters(model)
    inputs = {k: v.to(dtype) if _is_float(v) else v for k, v in family.inputs().items()}
    return model, inputs


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def scale_parameters(model: nn.Module) -> None:
    """Random weights large enough that every part matters, small enough that softmaxes do not saturate."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        norm = "Norm" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if norm and name == "weight":
                noise = 1 + 0.3 * noise
            elif parameter.dim() <= 1:
                noise = 0.5 * noise
            elif not isinstance(module, nn.Embedding):
                noise = noise * 1.2 / parameter[0].numel() ** 0.5
            with torch.no_grad():
                parameter.copy_(noise)


def tokens(batch: int = 2, length: int = 7) -> torch.Tensor:
    return torch.randint(3, 50, (batch, length), generator=torch.Generator().manual_seed(2))


def text() -> Inputs:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": tokens(), "attention_mask": mask}


def dense(length: int = 5) -> torch.Tensor:
    return torch.randn(2, length, 32, generator=torch.Generator().manual_seed(length))


def part(name: str, start: int = 0, size: int | None = None, out_dim: int = 0, joint: str = ".") -> Part:
    return Part(f"{name}{joint}weight", f"{name}{joint}bias", start, size, out_dim)


def attention(prefix: str, names: str, heads: int = 4, kv_heads: int | None = None, **more: Any) -> Attention:
    """Four separate projections, ``names`` being those of query, key, value and output."""
    return Attention(*(part(f"{prefix}{n}") for n in names.split()), heads, kv_heads or heads, **more)  # type: ignore[misc]


def fused(
    name: str, output: str, sizes: tuple[int, int, int] = (32, 32, 32), out_dim: int = 0, joint: str = ".", **more: Any
) -> Attention:
    """Query, key and value stacked in one weight."""
    starts = (0, sizes[0], sizes[0] + sizes[1])
    stacked = [part(name, s, n, out_dim, joint) for s, n in zip(starts, sizes, strict=True)]
    heads, kv_heads = sizes[0] // 8, sizes[1] // 8
    return Attention(*stacked, part(output, out_dim=out_dim), heads, kv_heads, **more)


def ffn(prefix: str, up: str, down: str, gate: str | None = None, out_dim: int = 0, **more: Any) -> FeedForward:
    return FeedForward(
        part(f"{prefix}{up}", out_dim=out_dim),
        part(f"{prefix}{down}", out_dim=out_dim),
        None if gate is None else part(f"{prefix}{gate}"),
        **more,
    )


def gated(name: str, down: str, gate_first: bool = True) -> FeedForward:
    """Gate and up stacked in one weight of 2 x 48 rows."""
    first, second = part(name, 0, 48), part(name, 48, 48)
    return FeedForward(second if gate_first else first, part(down), first if gate_first else second)


def each(template: str, count: int, unit: Callable[[str], Any]) -> tuple[Any, ...]:
    return tuple(unit(template.format(i)) for i in range(count))


def hugging_face(model: Any, config: Any, options: dict[str, Any]) -> Callable[[str], nn.Module]:
    return lambda form: model._from_config(config(**options), attn_implementation=form)

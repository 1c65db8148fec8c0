"""What a masked training step of 7B and 70B would take on 8 and 64 GPUs: arithmetic from counted steps, not measured.

Counts are of models with one and with two layers of the shape: a third layer adds what the second did. The GPU's
figures are its maker's; the share of its peak that training reaches is an assumption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.scaling.models import LLAMA_7B, LLAMA_70B, Shape

LARGE = {"7B": LLAMA_7B, "70B": LLAMA_70B}
GPUS = (8, 64)
TEXTS = (1, 4)  # at a time
NODE = 8  # GPUs that links join; a network joins nodes
STEP = 2**19  # tokens of an optimizer step, on all GPUs
ADAM = 2  # numbers a parameter
SCORE = 4 * (2 + ADAM)  # bytes: a score, its gradient, its states, in float32
HALF = 2  # bytes
# Of a weight in bfloat16, by torch's own multiplications: read, written in the forward; gradient times mask, gradient
# times weight, and its sum in the backward. Checkpointing repeats the forward.
MASK_FORWARD, MASK_BACKWARD = 2 * HALF, 6 * HALF


@dataclass(frozen=True)
class Gpu:
    """Published peaks: bytes, FLOP/s of dense bfloat16 products, bytes/s of memory, of links to others, of network."""

    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    network: float


# NVIDIA's data sheet: 80 GB, 989 TFLOP/s without sparsity, 3.35 TB/s, NVLink 900 GB/s (both ways); 400 Gb/s InfiniBand.
H100 = Gpu("H100 SXM", 80e9, 989e12, 3.35e12, 450e9, 50e9)
UTILISATION = 0.4


@dataclass(frozen=True)
class Counted:
    """A step on one text, of a model of that shape: whole, and of one of its layers."""

    shape: Shape
    whole: Mapping[str, float]
    layer: Mapping[str, float]

    @property
    def weights(self) -> float:
        """Parameters without the scores."""
        return self.whole["parameters"] - self.whole["scores"]


def counted(cases: Mapping[str, Any], shape: Shape) -> Counted:
    """From the cases of one and two layers."""
    one, two = (cases[f"count {shape.family} {n}x{shape.width} 1 texts"] for n in (1, 2))
    names = ("parameters", "scores", "masked", "flops", "saved bytes", "saved bytes under autocast")
    layer = {name: two[name] - one[name] for name in names}
    whole = {name: one[name] + (shape.layers - 1) * layer[name] for name in names}
    return Counted(shape, whole | {"tokens": one["tokens"]}, layer)


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU, by what they are for."""

    weights: float
    gradients: float
    adam: float
    scores: float
    gathered: float
    masked: float
    activations: float
    rest: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def memory(model: Counted, ranks: int, sharded: bool, checkpointed: bool, masters: bool, texts: int = 1) -> Memory:
    """A rank's step on ``texts`` texts at a time.

    Args:
        sharded: parameters, gradients and states divided among ranks (FSDP); else whole on each (DDP).
        checkpointed: a layer's forward is repeated in the backward, and only its input kept.
        masters: weights, gradients and states in float32, computing in bfloat16; else all in bfloat16.
    """
    share = model.weights / (ranks if sharded else 1) * (4 if masters else HALF)
    autocast = masters and not sharded  # FSDP gathers in bfloat16
    saved = "saved bytes under autocast" if autocast else "saved bytes"
    copy = HALF * model.layer["masked"]  # the masked weights of a layer, which its products keep for the backward
    inner, layers = model.layer[saved] - copy, model.shape.layers
    inputs = HALF * model.whole["tokens"] * model.shape.width
    outside = model.weights - layers * (model.layer["parameters"] - model.layer["scores"])
    return Memory(
        weights=share,
        gradients=share,
        adam=ADAM * share,
        scores=SCORE * model.whole["scores"],
        gathered=HALF * (2 * model.layer["parameters"] + outside) if sharded else 0.0,
        masked=copy * (1 if checkpointed else layers),
        activations=texts * (layers * inputs + inner if checkpointed else layers * inner),
        rest=texts * (model.whole[saved] - layers * model.layer[saved]),
    )


def memories(model: Counted) -> Iterator[tuple[str, bool, bool, Memory]]:
    """Of DDP, and of FSDP on 8 and 64 GPUs: name, checkpointed, masters, bytes."""
    for name, ranks, sharded in (("DDP", 1, False), *((f"FSDP, {n}", n, True) for n in GPUS)):
        for masters in (False, True):
            for checkpointed in (False, True):
                yield name, checkpointed, masters, memory(model, ranks, sharded, checkpointed, masters)


@dataclass(frozen=True)
class Work:
    """A step of 2^19 tokens under FSDP, checkpointed: seconds of a GPU, bytes that it sends, hours for 1e9 tokens.

    ``sent``: weights gathered for forward and backward and gradients scattered, in bfloat16, of every micro-batch.
    ``linked``: seconds of that and of the scores at the link's peak. Hours: of products and masks, or of the link where
    that takes longer; then with a teacher, which computes a forward and is gathered once more.
    """

    products: float
    masks: float
    sent: float
    scores: float
    linked: float
    hours: float
    hours_taught: float


def flops(model: Counted) -> dict[str, float]:
    """A token's: forward and backward; the layers' forward, which checkpointing repeats; a teacher's forward."""
    tokens = model.whole["tokens"]
    forward = model.whole["flops"] / tokens / 3  # a product's backward is two of its size
    again = model.layer["flops"] / tokens / 3 * model.shape.layers
    return {"step": 3 * forward, "recomputed": again, "teacher": forward}


def work(model: Counted, ranks: int, texts: int = 1, gpu: Gpu = H100) -> Work:
    """On ``ranks`` GPUs, each with ``texts`` texts at a time. A ring sends (n − 1)/n of what it gathers or scatters."""
    share = STEP / ranks
    turns = share / (texts * model.whole["tokens"])
    needed, reach = flops(model), gpu.flops * UTILISATION
    products = share * (needed["step"] + needed["recomputed"]) / reach
    masks = turns * model.whole["masked"] * (2 * MASK_FORWARD + MASK_BACKWARD) / gpu.bandwidth
    ring = turns * (ranks - 1) / ranks
    whole = ring * HALF * model.weights
    scores = ring * 2 * 4 * model.whole["scores"]
    link = gpu.link if ranks <= NODE else gpu.network
    linked = (3 * whole + scores) / link
    taught = share * needed["teacher"] / reach
    steps = 1e9 / STEP / 3600
    return Work(
        products=products,
        masks=masks,
        sent=3 * whole,
        scores=scores,
        linked=linked,
        hours=steps * max(products + masks, linked),
        hours_taught=steps * max(products + masks + taught, linked + whole / link),
    )

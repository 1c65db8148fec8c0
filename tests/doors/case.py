"""A pruned model of a family in a folder, with what the masked one computes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import passes
from bpc.dense import DenseModel
from bpc.hub.standalone import auto_classes
from tests.passes.families import FAMILIES, make
from tests.passes.family_masks import draw
from tests.passes.test_experts import DOWN, mixtral

PREFERRED = (
    "AutoModelForSequenceClassification", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM",
    "AutoModelForImageClassification", "AutoModel",
)  # fmt: skip
FAMILY_NAMES = (
    "bert", "distilbert", "deberta-v2", "modernbert", "xlnet", "gpt2", "llama", "gemma2", "mixtral", "t5", "bart",
    "vit", "nn-encoder",
)  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {}, "beams": {"num_beams": 3}, "static cache": {"cache_implementation": "static"}
}  # fmt: skip


@dataclass
class Case:
    """``outputs``: the masked model's first. ``tokens``: what it generates, in each of `WAYS`."""

    auto: str | None
    inputs: dict[str, Any]
    outputs: torch.Tensor
    tokens: dict[str, torch.Tensor]
    prompt: dict[str, torch.Tensor]
    text: bool
    made: dict[str, str]  # door -> "" or why not


def first(outputs: Any) -> torch.Tensor:
    """The first tensor of floats."""
    return next(x for x in pytree.tree_leaves(outputs) if isinstance(x, torch.Tensor) and x.is_floating_point())


def reason(error: Exception) -> str:
    """The first line; an error that is not bpc's own says whose it is."""
    frames, module = [], type(error).__module__
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        trace = trace.tb_next
    own = module.partition(".")[0] in ("bpc", "passes") or frames[-1:] in (["bpc"], ["passes"])
    line = (str(error).strip().splitlines() or [""])[0][:240]
    return line if own else f"{type(error).__name__} in {frames[-1] if frames else module}: {line}"


def _masked(family: str) -> tuple[nn.Module, dict[str, Any]]:
    if family == "mixtral":
        model, inputs = mixtral("grouped_mm", 2, torch.float32), dict(FAMILIES["llama"].inputs())
        masks = {n: _first_units(p) for n, p in model.named_parameters() if n.endswith(DOWN)}
    else:
        described = FAMILIES[family]
        model, inputs = make(described, described.forms[0], torch.float32)
        masks = draw("heads", described, {n: p.detach() for n, p in model.named_parameters()})
    with torch.no_grad():
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if name in masks:
                parameter.mul_(masks[name])
    return model, inputs


def _first_units(parameter: torch.Tensor) -> torch.Tensor:
    return (torch.arange(parameter.shape[-1]) >= 16).expand(parameter.shape)


def prepare(family: str, folder: Path) -> Case:
    """Prune a tiny model of the family, and put all there that fresh processes need."""
    torch.manual_seed(0)
    model, inputs = _masked(family)
    with torch.no_grad():
        outputs = first(model(**inputs))
    dense = DenseModel.from_shrink(passes.shrink(passes.trace(model, inputs)), model)
    made = {"shrink": ""}
    has_config = hasattr(model, "config")
    autos = auto_classes(model) if has_config else {}
    auto = next((name for name in PREFERRED if autos.get(name) == type(model).__name__), None)
    text = "input_ids" in inputs
    tokens, prompt = {}, {}
    if auto in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM"):
        ids = inputs["input_ids"]
        prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        tokens = {way: generated(model, prompt, how) for way, how in WAYS.items()}
    try:
        dense.describe_module()
        made["module"] = ""
    except Exception as error:
        made["module"] = reason(error)
    (folder / "dense.pkl").write_bytes(pickle.dumps(dense))
    for door, standalone in (("save", False), ("standalone", True)):
        try:
            dense.save_pretrained(folder / door, standalone=standalone)
            made[door] = ""
            if text:
                tokenizer().save_pretrained(folder / door)
        except Exception as error:
            made[door] = reason(error)
    if has_config:
        model.save_pretrained(folder / "masked")  # type: ignore[operator]
        if text:
            tokenizer().save_pretrained(folder / "masked")
    case = Case(auto, inputs, outputs, tokens, prompt, text, made)
    torch.save(case.__dict__, folder / "case.pt")
    return case


def generated(model: Any, prompt: dict[str, torch.Tensor], how: dict[str, Any]) -> torch.Tensor:
    settings = {"max_new_tokens": 5, "do_sample": False, "use_cache": True, "pad_token_id": 0, **how}
    found: torch.Tensor = model.generate(**prompt, **settings)
    return found


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 4, "bad": 5}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")

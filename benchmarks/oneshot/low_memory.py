"""SmolLM2-135M pruned without training under a limit of memory: in memory, which fails, and from files, which does not.

    python benchmarks/oneshot/low_memory.py --data DIR [--limit MB] [--layers N] [in_memory] [stream]

DIR holds train.txt and eval.txt, as for wikitext2.py. Every run is a process of its own. The limit is of anonymous
resident memory (RssAnon) beyond what the process has when everything is imported, sampled fifty times a second: a run
that goes above it is ended. Pages of mapped files are not counted, which the system drops where it needs them; so
RLIMIT_DATA is of no use here: it counts the whole file, because safetensors maps it privately.
``--limit 0`` sets none, to compare the results.
``--layers``: only the first ones of the model. Perplexities are measured afterwards, without a limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MB = 10**6
LENGTH, CALIBRATION, EVALUATION = 128, 8, 32
SETTING: dict[str, Any] = {"samples": CALIBRATION, "batch_size": 1, "max_length": LENGTH, "effort": 0.05}


def make(directory: Path, layers: int | None) -> None:
    """The model as transformers writes it, with its tokenizer."""
    from wikitext2 import load

    model, tokenizer, _ = load()
    if layers is not None:
        del model.model.layers[layers:]
        model.config.num_hidden_layers = layers
        model.config.layer_types = None
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def prune(how: str, directory: Path, data: Path, out: Path, limit: int) -> None:
    """One run, watched."""
    import transformers

    from bpc.oneshot import Target, prune_once, stream_prune_once
    from bpc.oneshot.batches import token_chunks

    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    with (data / "train.txt").open(encoding="utf-8") as lines:
        batches = list(token_chunks(lines, tokenizer, samples=CALIBRATION, length=LENGTH, batch_size=1))
    before = _status("RssAnon")
    peak, ended = [before], threading.Event()
    start = time.perf_counter()

    def tell(how_it_ended: str) -> None:
        figures = {"peak MB": (peak[0] - before) // MB, "seconds": round(time.perf_counter() - start)}
        print(json.dumps({"how": how, "limit MB": limit, "ended": how_it_ended, **figures}), flush=True)

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], _status("RssAnon"))
            if limit and peak[0] - before > limit * MB:
                tell("above the limit")
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    load = transformers.AutoModelForCausalLM.from_pretrained
    if how == "stream":
        shell = load(directory, device_map="meta")
        stream_prune_once(shell, directory, batches, Target(density=0.8), out, **SETTING)
    else:
        prune_once(load(directory), batches, Target(density=0.8), **SETTING).save_pretrained(out)
    ended.set()
    tell("done")


def evaluate(directory: Path, data: Path, model: Path) -> None:
    """The perplexity of a model that was written, on the first pieces of eval.txt."""
    import torch
    import transformers

    import bpc
    from bpc.oneshot.batches import token_chunks

    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    small = bpc.load(model).module
    with (data / "eval.txt").open(encoding="utf-8") as lines, torch.no_grad():
        pieces = list(token_chunks(lines, tokenizer, samples=EVALUATION, length=LENGTH, batch_size=1))
        losses = [float(small(**piece, labels=piece["input_ids"]).loss) for piece in pieces]
    print(json.dumps({"perplexity": round(float(torch.tensor(losses).mean().exp()), 3)}))


def _status(name: str) -> int:
    """Bytes of this process under that name."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", nargs="*", default=["in_memory", "stream"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--step", nargs=3, metavar=("NAME", "DIR", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        name, directory, out = given.step[0], Path(given.step[1]), Path(given.step[2])
        if name == "make":
            return make(directory, given.layers)
        if name == "evaluate":
            return evaluate(directory, given.data, out)
        return prune(name, directory, given.data, out, given.limit)
    with tempfile.TemporaryDirectory() as folder:
        same = [sys.executable, __file__, "--data", str(given.data), "--limit", str(given.limit)]
        same += ["--layers", str(given.layers)] if given.layers else []
        subprocess.run([*same, "--step", "make", f"{folder}/model", "-"], check=True)
        for how in given.how:
            subprocess.run([*same, "--step", how, f"{folder}/model", f"{folder}/{how}"], check=False)
            if Path(folder, how, "model.safetensors").exists():
                subprocess.run([*same, "--step", "evaluate", f"{folder}/model", f"{folder}/{how}"], check=True)
    return None


if __name__ == "__main__":
    main()

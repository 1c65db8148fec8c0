"""``bpc prune``: fine-prune a text classifier and compile the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bpc.cli.targets import Bytes, Density, Dtype, Params, Runtime, Shape, Speedup, Threads, target_of
from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors

if TYPE_CHECKING:
    from bpc.spec import Spec


@reports_errors
def prune(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="Model directory to start from, with its tokenizer.")],
    data: Annotated[Path, typer.Option(help="Training data: .csv, .tsv or .jsonl with a text and a label column.")],
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
    evaluate: Annotated[Path | None, typer.Option("--eval", help="Held-out data, same columns: accuracy.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Fine-tuned model directory to distil from.")] = None,
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    pair: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    label: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the training data.")] = 4.0,
    fill_epochs: Annotated[float, typer.Option(min=0, help="More passes, where the spec says to fill.")] = 2.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a step.")] = 32,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Of the weights; the scores' is chosen by the run's length.")
    ] = 3e-5,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens a text is cut to; default 128, or what the model has positions for."),
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 autocast.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of data order and initialisation.")] = 42,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    trust_remote_code: TrustCode = False,
) -> None:
    """Train block scores and weights together, then compile the masks away into OUT/small.

    Ctrl-C and SIGTERM save a checkpoint; the same command with --resume goes on exactly where it stopped, or, after a
    kill, at the newest complete checkpoint. OUT/masked and OUT/masks.safetensors hold the fine-tuned weights and the
    masks, for `bpc shrink`. Other tasks than text classification: use `bpc.Trainer` from Python.

    With a target the small model costs what was asked; without one, the spec's λ and threshold decide.
    """
    import torch

    from bpc.cli.data import Columns, LabelledTexts, labels_of, read_table
    from bpc.cli.fingerprint import check_same_run, digest_of_rows, digest_of_weights
    from bpc.cli.models import load_tokenizer, read_config, save_tokenizer, some
    from bpc.cli.training import Run, class_order, load_classifier, load_teacher
    from bpc.hub.load import WEIGHT_FILES
    from bpc.inputs import example_inputs
    from bpc.program import compile
    from bpc.scores.files import save_masks
    from bpc.spec import load_spec
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory
    from bpc.train import fill_zeros
    from bpc.writing import new_files, write_text

    console = quiet_console()
    rules = load_spec(spec)
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
    checkpoints = check_output(out, rules, resume)
    positions = getattr(read_config(model), "max_position_embeddings", None)
    max_length = max_length or min(128, positions or 128)
    if positions and max_length > positions:
        raise CommandError(
            f"--max-length {max_length}: the model has positions for {positions} tokens; give at most that"
        )
    tokenizer = load_tokenizer(model)
    if tokenizer is None:
        raise CommandError(
            f"{model} has no tokenizer (tokenizer.json); save one there: tokenizer.save_pretrained({str(model)!r})"
        )
    columns = Columns(text, pair, label)
    rows = read_table(data, columns)
    labels = class_order(model, labels_of(rows, columns))
    if len(labels) < 2:
        raise CommandError(f"{data}: every row has the label {labels[0]!r}; a classifier needs two or more")
    held_out = read_table(evaluate, columns) if evaluate else None
    check_same_run(
        out,
        {
            "data": digest_of_rows(rows),
            "labels": labels,
            "epochs": epochs,
            "base weights": digest_of_weights(model),
            "teacher": digest_of_weights(teacher) if teacher else None,
            "batch size": batch_size,
            "learning rate": learning_rate,
            "max length": max_length,
            "seed": seed,
            "bf16": bf16,
            "target": None if target is None else str(target),
        },
        resume,
    )
    run = Run(
        data=LabelledTexts(rows, columns, labels, tokenizer, max_length),
        held_out=LabelledTexts(held_out, columns, labels, tokenizer, max_length) if held_out else None,
        teacher=load_teacher(teacher, labels) if teacher else None,
        tokenizer=tokenizer,
        batch_size=batch_size,
        learning_rate=learning_rate,
        bf16=bf16,
        seed=seed,
    )
    torch.manual_seed(seed)  # a new head is random
    network: Any
    network, new = load_classifier(model, labels)
    if new:
        console.print(f"new weights, which start at random: {some(new)}")
    if target is not None and target.speedup is not None:
        console.print("timing the model, unless this machine remembers it")
    program = compile(network, rules, example_inputs(network, tokenizer), target=target)
    write_text(out / "spec.json", rules.model_dump_json(indent=1))
    trainer = run.train(checkpoints, epochs, "pruning", program=program)
    if held_out:
        console.print(run.accuracy(trainer))
    save_masks(program.masks(), out / "masks.safetensors")
    with console.status("compiling"):
        dense = program.shrink()
    if target is not None:
        console.print(f"asked for {target}: {program.describe_cost()}")
    console.print(str(dense.report))
    program.detach()
    with new_files(out / "masked", keystones=("config.json",), replaces=WEIGHT_FILES) as staged:
        network.save_pretrained(staged)
    if rules.fill:
        small: Any = dense.module
        fill_zeros(small, [plan.weight for plan in program.plans], torch.Generator().manual_seed(seed))
        trainer = run.train(out / "fill-checkpoints", fill_epochs, "filling", model=small)
        if held_out:
            console.print(run.accuracy(trainer))
    dense.save_pretrained(out / "small")
    for directory in ("small", "masked"):
        save_tokenizer(tokenizer, out / directory)
    console.print(f"small model: {out / 'small'}")


def check_output(out: Path, spec: Spec, resume: bool) -> Path:
    """The directory for checkpoints. Raises `CommandError` where old ones and ``--resume`` do not fit together."""
    from bpc.spec import load_spec
    from bpc.train.checkpoints import checkpoints_in, newest_complete

    checkpoints, written = out / "checkpoints", out / "spec.json"
    found = checkpoints_in(checkpoints)
    if resume and not found:
        raise CommandError(f"--resume: {checkpoints} holds no checkpoint")
    if resume and newest_complete(checkpoints) is None:
        raise CommandError(f"--resume: {checkpoints} holds no complete checkpoint; remove it to start again")
    if found and not resume:
        raise CommandError(f"{checkpoints} holds checkpoints already: add --resume to go on, or choose another --out")
    if resume and written.exists() and load_spec(written) != spec:
        raise CommandError(f"--resume: the run in {out} used another spec ({written}); give that one")
    return checkpoints

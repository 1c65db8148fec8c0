"""``bpc prune``: fine-prune a text classifier and compile the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bpc.cli.console import quiet_console
from bpc.cli.errors import INTERRUPTED, CommandError, reports_errors

if TYPE_CHECKING:
    from torch import nn


@reports_errors
def prune(
    model: Annotated[Path, typer.Option(help="Model directory to start from, with its tokenizer.")],
    data: Annotated[Path, typer.Option(help="Training data: .csv, .tsv or .jsonl with a text and a label column.")],
    out: Annotated[Path, typer.Option(help="Where checkpoints, masks and the small model go; made if missing.")],
    spec: Annotated[str, typer.Option(help="Preset name, or a TOML, YAML or JSON file.")] = "hybrid",
    evaluate: Annotated[Path | None, typer.Option("--eval", help="Held-out data, same columns: accuracy.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Fine-tuned model directory to distil from.")] = None,
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    pair: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    label: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    epochs: Annotated[float, typer.Option(help="Passes over the training data.")] = 4.0,
    batch_size: Annotated[int, typer.Option(help="Texts a step.")] = 32,
    learning_rate: Annotated[
        float, typer.Option(help="Of the weights; the scores' is chosen by the run's length.")
    ] = 3e-5,
    max_length: Annotated[int, typer.Option(help="Tokens a text is cut to.")] = 128,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 autocast.")] = False,
    seed: Annotated[int, typer.Option(help="Of data order and initialisation.")] = 42,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
) -> None:
    """Train block scores and weights together, then compile the masks away into OUT/small.

    Ctrl-C saves a checkpoint; the same command with --resume goes on exactly where it stopped. OUT/masked and
    OUT/masks.safetensors hold the fine-tuned weights and the masks, for `bpc shrink`. Other tasks than text
    classification: use `bpc.Trainer` from Python.
    """
    import transformers

    from bpc.cli.data import Columns, LabelledTexts, labels_of, read_table
    from bpc.cli.models import example_inputs, load_tokenizer
    from bpc.masks.files import save_masks
    from bpc.program import compile
    from bpc.spec import load_spec
    from bpc.train import ResumableInterrupt, Trainer

    console = quiet_console()
    checkpoints = out / "checkpoints"
    last = transformers.trainer_utils.get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if resume and last is None:
        raise CommandError(f"--resume: {checkpoints} holds no checkpoint")
    rules = load_spec(spec)
    spec_file = out / "spec.json"
    if resume and spec_file.exists() and load_spec(spec_file) != rules:
        raise CommandError(f"--resume: the run in {out} used another spec ({spec_file}); give that one")
    if last is not None and not resume:
        raise CommandError(f"{checkpoints} holds checkpoints already: add --resume to go on, or choose another --out")
    tokenizer = load_tokenizer(model)
    if tokenizer is None:
        raise CommandError(f"{model} has no tokenizer (tokenizer.json)")
    columns = Columns(text, pair, label)
    rows = read_table(data, columns)
    labels = labels_of(rows, columns)

    def texts(rows: list[dict[str, str]]) -> LabelledTexts:
        return LabelledTexts(rows, columns, labels, tokenizer, max_length)

    network = load_classifier(model, labels)
    program = compile(network, rules, example_inputs(network, model))
    out.mkdir(parents=True, exist_ok=True)
    spec_file.write_text(rules.model_dump_json(indent=1))
    arguments = transformers.TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        learning_rate=learning_rate,
        logging_steps=10,
        save_total_limit=2,
        save_strategy="epoch",
        report_to=[],
        bf16=bf16,
        seed=seed,
        dataloader_pin_memory=False,
    )
    stop = ResumableInterrupt()
    trainer = Trainer(
        program=program,
        teacher=load_classifier(teacher, labels) if teacher else None,
        args=arguments,
        train_dataset=texts(rows),
        eval_dataset=texts(read_table(evaluate, columns)) if evaluate else None,
        processing_class=tokenizer,
        compute_metrics=accuracy,
        callbacks=[stop],
    )
    trainer.train(resume_from_checkpoint=last)
    if stop.interrupted:
        console.print(f"stopped at step {trainer.state.global_step}; the same command with --resume goes on")
        raise typer.Exit(INTERRUPTED)
    if evaluate:
        console.print(f"accuracy {trainer.evaluate()['eval_accuracy']:.4f}")
    save_masks(program.masks(), out / "masks.safetensors")
    with console.status("compiling"):
        dense = program.shrink()
    dense.save_pretrained(out / "small")
    plain: Any = program.detach()
    plain.save_pretrained(out / "masked")
    for directory in ("small", "masked"):
        tokenizer.save_pretrained(out / directory)
    console.print(str(dense.report))
    console.print(f"small model: {out / 'small'}")


def load_classifier(directory: Path, labels: list[str]) -> nn.Module:
    """A sequence classifier with one output per label; a new head where the directory has none that fits."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    names = dict(enumerate(labels))
    model: nn.Module = transformers.AutoModelForSequenceClassification.from_pretrained(
        directory,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=config.num_labels != len(labels),
        num_labels=len(labels),
        id2label=names,
        label2id={label: i for i, label in names.items()},
    )
    return model


def accuracy(prediction: Any) -> dict[str, float]:
    """Share of rows whose highest logit is the label's."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}

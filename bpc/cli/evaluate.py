"""``bpc eval``: how well a model does its task, whatever it is stored as."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpc.cli.model_option import model_option
from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.events import LogJson
from bpc.terminal.options import is_screen, write_json


@reports_errors
def evaluate(
    model: Annotated[Path, model_option("Model directory, original or small, or an ONNX file")],
    data: Annotated[str, typer.Option(help="Labelled data: a file, a folder of images, or one on the hub.")],
    task: Annotated[
        str | None,
        typer.Option(help="What the data are for, e.g. regression; by its columns if left out.", show_default=False),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="For an ONNX file: the directory of the model it was made of.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="role=COLUMN, e.g. tags=ner_tags; may be given again.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a batch.")] = 32,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens an example is cut to; by the task and the model.", show_default=False),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file, too; - prints it alone.")
    ] = None,
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Print the task's metrics with their standard errors, and those of an answer that ignores the input.

    An ONNX file is run by ONNX Runtime; it needs --tokenizer, the directory with config.json and the tokenizer.
    """
    from bpc.cli.fingerprint import digest_of, digest_of_rows
    from bpc.cli.tasks import classes_for, column_names, length_for, named_rows, processor_for, task_of
    from bpc.cli.training import load_for
    from bpc.emit.check import ExportError, open_session
    from bpc.emit.ir_tools import read_model
    from bpc.results import Result, score_figures
    from bpc.tasks.evaluate import by_module, by_session, trivial
    from bpc.tasks.evaluate import evaluate as measure
    from bpc.terminal.output import check_file

    console = quiet_console()
    if not is_screen(json_file):
        check_file("--json", json_file, model)
    directory = tokenizer or model
    if model.is_file() and tokenizer is None:
        raise CommandError(f"{model} is a file: give the directory of the model it was made of as --tokenizer")
    rows = named_rows(data, column_names(columns), "validation")
    kind = task_of(task, rows, data)
    chosen = kind(processor_for(kind, directory), length_for(kind, directory, max_length))
    rows = chosen.check(rows, data)
    chosen.classes = classes_for(chosen, rows, directory)
    chosen.learn(rows)
    if model.is_file():
        read_model(model)  # says what is wrong with a file that is none
        try:
            session = open_session(model)
        except ExportError as error:
            raise CommandError(f"{model}: {error}") from error
        scores = measure(chosen, by_session(session), rows, batch_size)
    else:
        network, new = load_for(chosen, model)
        if new:
            raise CommandError(f"{model} has no fitting head for {kind.name}: it lacks {', '.join(new)}")
        scores = measure(chosen, by_module(network), rows, batch_size, network)
    baseline = trivial(chosen, rows, rows)
    digest = digest_of_rows(rows)
    weights = digest_of(model)
    result = Result(
        command="eval",
        figures=score_figures([], scores, baseline, f"{len(rows):,} examples, sha256 {digest}"),
        settings={"task": kind.name, "max length": chosen.max_length, "labels": chosen.classes},
        inputs={"data": digest, "model": weights},
    )
    write_json(json_file, result.to_json)
    if is_screen(json_file):
        return
    console.print(f"{kind.name}, {len(rows):,} examples: {', '.join(map(str, scores))}")
    if baseline:
        console.print(f"the same answer whatever the input: {baseline[0]}")

"""``bpc trim-vocab``: a model directory with the tokens that some texts use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bpc.cli.model_option import model_option
from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.events import LogJson, phase


@reports_errors
def trim_vocab(
    context: typer.Context,
    model: Annotated[Path, model_option("Model directory with its tokenizer, of any kind that bpc reads")],
    texts: Annotated[Path, typer.Option(help="What the model will read: .txt (a text a line), .csv, .tsv or .jsonl.")],
    out: Annotated[Path, typer.Option(help="Where the smaller model goes; made if missing.")],
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    keep_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the new vocabulary at most: the most frequent.")
    ] = None,
    min_count: Annotated[int, typer.Option(min=1, help="Occurrences that keep a token.")] = 1,
    coverage: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep no more than covers this share of the texts' tokens.")
    ] = None,
    characters: Annotated[
        Literal["all", "used"], typer.Option(help="Single characters: all, or those in the texts; others are unknown.")
    ] = "all",
    check: Annotated[Path | None, typer.Option(help="Held-out texts, same column: their coverage.")] = None,
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Drop the tokens that the texts do not use from tokenizer, embeddings and configs, exactly.

    Texts of kept tokens are tokenised as before, and the model computes the same for them; both are verified before
    anything is written. Special tokens, bytes and characters stay.
    """
    from bpc.cli.models import keep_processors, load_model, load_tokenizer, save_tokenizer
    from bpc.cli.trust import TRUSTED
    from bpc.dense import DenseModel, is_dense_directory, load
    from bpc.hub.load import WEIGHT_FILES
    from bpc.tasks.data import read_texts
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory
    from bpc.vocabulary.trim import trim_vocabulary
    from bpc.writing import new_files

    console = quiet_console()
    check_directory("--out", out, model)
    claim_directory(context, "--out", out)
    read, held_out = read_texts(str(texts), text), None if check is None else read_texts(str(check), text)
    with phase(console, "loading"):
        tokenizer = load_tokenizer(model)
        if tokenizer is None:
            raise CommandError(
                f"{model} has no tokenizer (tokenizer.json); save one there: tokenizer.save_pretrained({str(model)!r})"
            )
        small = is_dense_directory(model)
        network: Any = load(model, trust_remote_code=TRUSTED.get()) if small else load_model(model)
    with phase(console, "counting, cutting and verifying"):
        trimmed, tokenizer, report = trim_vocabulary(
            network,
            tokenizer,
            read,
            keep_tokens=keep_tokens,
            min_count=min_count,
            coverage=coverage,
            characters=characters,
            held_out=held_out,
        )
    if isinstance(trimmed, DenseModel):
        trimmed.save_pretrained(out)
    else:
        with new_files(out, keystones=("config.json",), replaces=WEIGHT_FILES) as staged:
            trimmed.save_pretrained(staged)
    save_tokenizer(tokenizer, out)
    keep_processors(model, out)
    console.print(f"{report}\nwritten to {out}")

"""``python -m examples.tweets``: the main job, end to end, on a real encoder and real text."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

from examples.tweets.data import encoder_directory

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended


def main(
    out: Annotated[Path, typer.Option(help="Where everything goes; made if missing.")] = Path("out"),
    train_size: Annotated[int | None, typer.Option(help="Tweets to learn from; all 32,392 if left out.")] = None,
    dense_epochs: Annotated[float, typer.Option(help="Passes of the dense fine-tuning.")] = 1.0,
    epochs: Annotated[float, typer.Option(help="Passes of the pruning.")] = 1.0,
    fill_epochs: Annotated[float, typer.Option(help="Passes over the small model afterwards; 0: none.")] = 1.5,
    batch_size: Annotated[int, typer.Option(help="Tweets a step.")] = 64,
    dense_learning_rate: Annotated[float, typer.Option(help="Peak, dense fine-tuning.")] = 1e-4,
    learning_rate: Annotated[float, typer.Option(help="Peak, weights while pruning.")] = 1e-4,
    fill_learning_rate: Annotated[float, typer.Option(help="Peak, small model.")] = 3e-4,
    score_learning_rate: Annotated[float | None, typer.Option(help="Left out: chosen by the run's length.")] = None,
    final_lambda: Annotated[float, typer.Option("--lambda", help="λ: higher prunes more.")] = 8.0,
    preset: Annotated[str, typer.Option(help="Pattern: hybrid, struct, …")] = "hybrid",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Fine-tune all-MiniLM-L6-v2 on tweets, prune it by blocks, compile, export and time it.

    Ctrl-C leaves a state that the same command goes on from. OUT then holds model.onnx, small/ (load it with
    bpc.load), dense/, dense.onnx, results.json and the report.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module="torch.utils.data")
    import transformers
    from rich.console import Console

    from examples.tweets import pipeline, results
    from examples.tweets.training import Interrupted

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which optional packages are missing
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    console = Console()
    start = time.perf_counter()
    settings = pipeline.Settings(
        train_size=train_size,
        dense_epochs=dense_epochs,
        epochs=epochs,
        fill_epochs=fill_epochs,
        batch_size=batch_size,
        dense_learning_rate=dense_learning_rate,
        learning_rate=learning_rate,
        fill_learning_rate=fill_learning_rate,
        score_learning_rate=score_learning_rate,
        final_lambda=final_lambda,
        preset=preset,
        seed=seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    try:
        outcome = pipeline.run(settings, out, console)
        tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_directory())
        with console.status("exporting and timing"):
            measured = results.measure(outcome, out, tokenizer)
    except (Interrupted, KeyboardInterrupt):
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    results.show(measured, console)
    results.save(measured, out / "results.json")
    outcome.place.finish()
    console.print(f"{(time.perf_counter() - start) / 60:.1f} minutes in all; results in {out}/", highlight=False)


if __name__ == "__main__":
    typer.run(main)

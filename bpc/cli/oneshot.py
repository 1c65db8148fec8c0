"""``bpc oneshot``: a model directory and unlabelled examples become a smaller model, without training."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bpc.cli.model_option import model_option
from bpc.cli.targets import Bytes, Density, Dtype, Params, Runtime, Shape, Speedup, Threads, target_of
from bpc.cli.trust import TrustCode
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.events import LogJson


class Narrowing(StrEnum):
    """`bpc.oneshot.ladders.Narrow`, for --help."""

    no = "no"
    alike = "alike"
    freely = "freely"


@reports_errors
def oneshot(
    context: typer.Context,
    model: Annotated[Path, model_option("Model directory (config.json, model.safetensors, tokenizer)")],
    data: Annotated[
        Path, typer.Option(help="Unlabelled examples: .txt (a text a line), .csv, .tsv, .jsonl, or a folder of images.")
    ],
    out: Annotated[Path, typer.Option(help="Where the small model goes; made if missing.")],
    target_speedup: Speedup = None,
    target_params: Params = None,
    target_density: Density = None,
    target_bytes: Bytes = None,
    runtime: Runtime = "onnx",
    dtype: Dtype = "float32",
    shape: Shape = "8x64",
    threads: Threads = None,
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    pair: Annotated[str | None, typer.Option(help="Column of a second text, for models of pairs.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Examples that are read at most.")] = 512,
    max_length: Annotated[int, typer.Option(min=1, help="Tokens of an example at most.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per batch.")] = 32,
    effort: Annotated[float, typer.Option(min=0, help="Time spent on measuring layers; 2 takes twice as long.")] = 1.0,
    multiple: Annotated[int, typer.Option(min=1, help="FFN dims are kept in multiples of this.")] = 8,
    narrow: Annotated[
        Narrowing,
        typer.Option(help="Fewer dims in the heads of a layer: values as keys, or each as many as they need."),
    ] = Narrowing.no,
    protect: Annotated[
        list[str] | None, typer.Option(help="Weights (globs) whose layer is left alone; may be given again.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Run the small model and the repaired one and compare.")] = True,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Add a Python file that loads the model without bpc.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Never hold the model: layer by layer, from files to files.")
    ] = False,
    max_shard_size: Annotated[str, typer.Option(help="With --stream: of the files that are written.")] = "5GB",
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Prune heads and FFN dims in minutes: no labels, no training loop, two cores.

    Interrupted, the same command goes on from the last whole layer. A causal language model reads the texts as one
    stream of tokens.

    --stream is for models that do not fit in memory: weights are read when a layer runs, activations wait in files
    beside OUT. Not for --target-speedup and --narrow, which run whole models.
    """
    from bpc.cli.calibration import read_examples
    from bpc.cli.fingerprint import digest_of_file, digest_of_weights
    from bpc.cli.models import keep_processors, load_model, load_shell, load_tokenizer, save_tokenizer
    from bpc.oneshot import prune_once, stream_prune_once
    from bpc.oneshot.figures import one_shot_figures
    from bpc.oneshot.progress import PhaseProgress
    from bpc.results import Result, layer_figures, size_figures, with_small
    from bpc.terminal.console import quiet_console
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory

    console = quiet_console()
    check_directory("--out", out, model)
    claim_directory(context, "--out", out)
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
    if stream and narrow != Narrowing.no:
        raise CommandError(
            "--narrow tries bases of heads on the whole model, which --stream never holds: leave one out"
        )
    network, tokenizer = (load_shell if stream else load_model)(model), load_tokenizer(model)
    examples = read_examples(
        network, tokenizer, model, data, text, pair, samples=samples, max_length=max_length, batch_size=batch_size
    )
    whole = size_figures(network, None)
    state = out.parent / f".{out.name}.oneshot"
    settings: dict[str, Any] = {
        "tokenizer": tokenizer,
        "samples": samples,
        "batch_size": batch_size,
        "max_length": max_length,
        "effort": effort,
        "multiple": multiple,
        "protect": protect or (),
        "verify": verify,
        "progress": PhaseProgress(console),
        "state": state,
    }
    if stream:
        done, chosen = stream_prune_once(
            network, model, examples, target, out, max_shard_size=max_shard_size, standalone=standalone, **settings
        )
        figures, told = [*with_small(whole, done.modules[1]), *layer_figures(done.layers)], str(done)
    else:
        dense = prune_once(network, examples, target, narrow=narrow.value, **settings)
        dense.save_pretrained(out, standalone=standalone)
        assert dense.one_shot is not None
        chosen = dense.one_shot
        figures, told = with_small(whole, dense.module), f"{dense.report}\n{dense.describe_module()}"
    Result(
        command="oneshot",
        figures=[*figures, *one_shot_figures(chosen)],
        settings={"target": str(target), "samples": samples, "max length": max_length, "effort": effort},
        inputs={"weights": digest_of_weights(model)} | ({"data": digest_of_file(data)} if data.is_file() else {}),
        details={"one-shot": chosen.to_dict()},
    ).write(out / "result.json")
    if tokenizer is not None:
        save_tokenizer(tokenizer, out)
    keep_processors(model, out)
    if state.exists():
        shutil.rmtree(state)
    console.print(f"{chosen}\n{told}\nwritten to {out}")

"""Benchmarks as commands: ``python -m bpc.bench published --id 19``, ``python -m bpc.bench profile A.onnx B.onnx``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from bpc.bench.cases import parse_shape, runs
from bpc.results.comparison import Comparison
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.help import ReadableCommand, ReadableGroup
from bpc.writing import new_file

if TYPE_CHECKING:
    from bpc.bench.published import PublishedModel

app = typer.Typer(cls=ReadableGroup, help="Benchmarks of bpc itself.", no_args_is_help=True, add_completion=False)

# Defaults of repeatable options; typer reads them, nothing writes them.
_MODELS = [19]
_SHAPES = ["8x128", "4x384", "1x128"]
_DTYPES = ["float32"]
_PEERS: list[str] = []
_NUMBERS: list[int] = []


@app.command(cls=ReadableCommand)
@reports_errors
def published(
    number: Annotated[
        list[int], typer.Option("--id", help="Published model, by id; several times for several.")
    ] = _MODELS,
    shape: Annotated[list[str], typer.Option(help="Batch x length; several times for several.")] = _SHAPES,
    every: Annotated[bool, typer.Option("--all", help="All published models.")] = False,
    dtype: Annotated[
        list[str], typer.Option(help="Of the small models; the dense one is float32 on the CPU, the same on CUDA.")
    ] = _DTYPES,
    plain: Annotated[bool, typer.Option("--plain", help="Also the plain torch.onnx.export file of each.")] = False,
    peer: Annotated[
        list[str], typer.Option(help="Also distilbert, tinybert6, tinybert4, torch-pruning, reference.")
    ] = _PEERS,
    multiple: Annotated[
        list[int], typer.Option(help="Also the first model with its dims rounded up to a multiple of this.")
    ] = _NUMBERS,
    runtime: Annotated[str, typer.Option(help="onnx, eager or compiled; cudagraphs with --device cuda.")] = "onnx",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of each side.")] = 15,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default all.")] = None,
    clock: Annotated[str, typer.Option(help="wall, or cpu (with --threads 1) on a busy machine.")] = "wall",
    to_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Rebuild BERT-base with the paper's published shapes, time all against the dense model in one run."""
    from bpc.bench.comparison import compare_all
    from bpc.bench.published import bert_base, published_model, published_models
    from bpc.results.comparison import comparison_table

    console = quiet_console()
    sizes = [parse_shape(text) for text in shape]
    number = list(published_models()) if every else number
    models = [published_model(n) for n in number]
    cases = runs([runtime], dtype, None, device)
    if plain and runtime != "onnx":
        raise CommandError("--plain adds the files torch.onnx.export writes; leave --runtime out")
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as name:
        graph = bert_base()
        graphs = _contestants(graph, models, plain, multiple, peer)
        # On the CPU all files, whatever their dtype, run against the one dense file in float32.
        rounds = [[kind] for _, kind in cases]
        if runtime == "onnx" and device == "cpu":
            rounds = [[kind for _, kind in cases]]
        for index, kinds in enumerate(rounds):
            dense_dtype = "float32" if device == "cpu" else kinds[0]
            dense: Any = graph
            others: dict[str, Any] = {label: contestant.graph for label, contestant in graphs.items()}
            if runtime == "onnx":
                folder = Path(name) / f"{index}"
                folder.mkdir()
                dense = _written(graph, folder / "dense.onnx", target=device, dtype=dense_dtype)
                others = _files(graphs, folder, kinds, dense_dtype, device)
            for batch, length in sizes:
                rows = compare_all(
                    dense,
                    others,
                    batch=batch,
                    length=length,
                    runtime=runtime,  # type: ignore[arg-type]
                    dtype=kinds[0],
                    dense_dtype=dense_dtype,
                    repeats=repeats,
                    threads=threads,
                    clock=clock,  # type: ignore[arg-type]
                    peak=not found,
                    device=device,  # type: ignore[arg-type]
                )
                console.print(comparison_table(rows))
                found += rows
    _write(found, to_json, {"repeats": repeats, "device": device})


@app.command(cls=ReadableCommand)
@reports_errors
def figure(
    result: Annotated[Path, typer.Argument(help="What `published --json` wrote.")],
    plot: Annotated[Path, typer.Option(help="Write the figure (PNG) here.")],
) -> None:
    """Draw the speed-up of published models against their arithmetic, with the paper's points."""
    from bpc.bench.plot import speedup_figure
    from bpc.bench.published import published_points
    from bpc.results import comparisons_of, read_result

    # The published models in every form; what they are compared with has no place on the limit's axis.
    found = [c for c in comparisons_of(read_result(result)) if "multiple" not in c.small.name]
    named = [(c, c.small.name.split(", ")[0]) for c in found]
    shown = [(c, number) for c, number in named if number.isdecimal()]
    if not shown:
        raise CommandError(f"{result} has no published model in it")
    drawn = speedup_figure([c for c, _ in shown], published_points(), annotate={number for _, number in shown})
    with new_file(plot) as staged:
        drawn.savefig(staged, dpi=130)


def _write(found: list[Comparison], to_json: Path | None, settings: dict[str, Any]) -> None:
    from bpc.results import bench_result

    if to_json is not None:
        bench_result(found, settings, {}).write(to_json)


class _Contestant(NamedTuple):
    """A graph to time against the dense one, and which files it gets."""

    graph: Any
    plain: bool = False  # as torch.onnx.export writes it
    every_dtype: bool = False  # else only the dense model's


def _contestants(
    dense: Any, models: list[PublishedModel], plain: bool, multiples: list[int], peers: list[str]
) -> dict[str, _Contestant]:
    """Every model to time against ``dense``, by its label."""
    from bpc.bench.peers import PEERS
    from bpc.bench.published import rebuild

    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        raise CommandError(f"--peer {unknown[0]}: choose {', '.join(PEERS)}")
    found: dict[str, _Contestant] = {}
    if plain:
        found["dense, plain"] = _Contestant(dense, plain=True)
    for model in models:
        small = rebuild(dense, model)
        found[f"{model.id}"] = _Contestant(small, every_dtype=True)
        if plain:
            found[f"{model.id}, plain"] = _Contestant(small, plain=True)
    for multiple in multiples:
        found[f"{models[0].id}, multiple of {multiple}"] = _Contestant(rebuild(dense, models[0], multiple))
    for name in peers:
        # The other tools leave a module: their users export it as torch does.
        try:
            found[name] = _Contestant(PEERS[name](models[0]), plain=name in ("torch-pruning", "reference"))
        except ModuleNotFoundError as error:
            raise CommandError(str(error)) from error
    return found


def _files(
    graphs: dict[str, _Contestant], folder: Path, kinds: list[str], dense_dtype: str, device: str
) -> dict[str, Path]:
    """{label: file}: the published models in every dtype, what they are compared with in that of the dense model."""
    from bpc.emit.recipe import PLAIN

    files = {}
    for index, (label, contestant) in enumerate(graphs.items()):
        options: dict[str, Any] = {"recipe": PLAIN} if contestant.plain else {}
        for kind in kinds if contestant.every_dtype else [dense_dtype]:
            named = label if kind == dense_dtype else f"{label}, {kind}"
            files[named] = _written(
                contestant.graph, folder / f"{index}-{kind}.onnx", target=device, dtype=kind, **options
            )
    return files


def _written(graph: Any, path: Path, **options: Any) -> Path:
    from bpc.emit.onnx import export_onnx

    return export_onnx(graph, path, check=False, **options).path


@app.command(cls=ReadableCommand)
@reports_errors
def baseline(
    shape: Annotated[list[str], typer.Option(help="Batch x length; several times for several.")] = _SHAPES,
    repeats: Annotated[int, typer.Option(help="Timed runs of each side.")] = 15,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default all.")] = None,
    clock: Annotated[str, typer.Option(help="wall, or cpu (with --threads 1) on a busy machine.")] = "wall",
    to_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Is the dense baseline as fast as can be? Our form of BERT-base against ONNX Runtime's best on others."""
    from bpc.bench.comparison import compare_all
    from bpc.bench.published import bert_base
    from bpc.bench.sides import Tuned
    from bpc.emit.recipe import PLAIN, Recipe
    from bpc.results.comparison import comparison_table

    sizes = [parse_shape(text) for text in shape]
    console = quiet_console()
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder:
        dense = bert_base()
        ours, plain, fused = (
            _written(dense, Path(folder) / f"{index}.onnx", recipe=recipe)
            for index, recipe in enumerate((None, PLAIN, Recipe(fusions="transformers")))
        )
        others = {
            "plain export": plain,
            "plain, no SkipLayerNorm": Tuned(plain, ("SkipLayerNormFusion",)),
            "transformers' fusions": fused,
        }
        found = [
            c
            for batch, length in sizes
            for c in compare_all(
                ours,
                others,
                batch=batch,
                length=length,
                repeats=repeats,
                threads=threads,
                clock=clock,  # type: ignore[arg-type]
                peak=False,
            )
        ]
    console.print(comparison_table(found))
    _write(found, to_json, {"repeats": repeats, "device": "cpu"})


@app.command(cls=ReadableCommand)
@reports_errors
def profile(
    dense: Annotated[Path, typer.Argument(help="The dense model's file.")],
    small: Annotated[Path, typer.Argument(help="The small model's file.")],
    shape: Annotated[str, typer.Option(help="Batch x length.")] = "8x128",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default all.")] = None,
) -> None:
    """Time per operator, dense and small side by side."""
    from bpc.bench.profile import profile_table

    quiet_console().print(profile_table(dense, small, *parse_shape(shape), threads=threads))


if __name__ == "__main__":
    app()

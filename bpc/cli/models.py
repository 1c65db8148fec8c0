"""Local model directories: the model with the head its config names, its tokenizer and its traced graph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
import typer
from safetensors import SafetensorError
from torch import fx, nn
from transformers.utils import (
    CHAT_TEMPLATE_FILE,
    IMAGE_PROCESSOR_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    VIDEO_PROCESSOR_NAME,
)

from bpc import configs
from bpc.cli.trust import TRUSTED
from bpc.hub.masks import without_masks
from bpc.inputs import example_inputs
from bpc.scores.files import multiply_masks
from bpc.terminal.errors import CommandError
from bpc.writing import new_files
from passes.frontend.trace import trace
from passes.masks import BlockScores, MaskSource, TensorFile

_PROCESSORS = (IMAGE_PROCESSOR_NAME, VIDEO_PROCESSOR_NAME, PROCESSOR_NAME, CHAT_TEMPLATE_FILE)  # sounds: as images
_SENTENCES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")


def load_shell(directory: Path, *, masks_follow: bool = False) -> nn.Module:
    """The model of `load_model` on the meta device: its sizes, none of its weights. Raises `CommandError`."""
    from bpc.directory import is_dense_directory

    if is_dense_directory(directory):
        raise CommandError(f"{directory} is a small model already: --stream reads what transformers wrote")
    return load_model(directory, masks_follow=masks_follow, device_map="meta")


def load_model(
    directory: Path, dtype: torch.dtype | None = None, *, masks_follow: bool = False, device_map: Any = None
) -> nn.Module:
    """The model of a local directory, in eval mode; the class is the first of ``architectures`` in its config.json.

    ``masks_follow``: the caller masks it, so that the unmasked weights of a checkpoint of `bpc.Trainer` will do.
    ``device_map``: as for transformers. Small models written by bpc load too. Nothing is downloaded and no pickle is
    read. Raises `CommandError`.
    """
    from bpc.dense import load
    from bpc.directory import is_dense_directory

    config = read_config(directory)
    if is_dense_directory(directory):
        return load(directory, trust_remote_code=TRUSTED.get()).module
    names = config.architectures
    found = configs.model_class(config, directory, TRUSTED.get()) if names else transformers.AutoModel
    if found is None:
        raise CommandError(
            f"{directory / 'config.json'} names the architecture {next(iter(names))!r}, which transformers "
            f"{transformers.__version__} does not have; use the Python API with a model object instead"
        )
    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    if device_map is not None:
        options["device_map"] = device_map
    if masks_follow:
        options["config"] = without_masks(config)
    model, missing = pretrained(found, directory, **options)
    if missing:
        typer.secho(f"warning: {directory} lacks weights, which are random now: {some(missing)}", fg="yellow", err=True)
    return model.eval()


def load_graph(directory: Path) -> fx.GraphModule:
    """The traced graph of a model directory; of one that bpc wrote, the small graph without its dead sublayers."""
    from bpc.dense import load
    from bpc.directory import is_dense_directory

    if directory.is_dir() and is_dense_directory(directory):
        return load(directory, trust_remote_code=TRUSTED.get()).graph_module
    model = load_model(directory)
    return trace(model, example_inputs(model, load_tokenizer(directory)))


def mask_source(path: Path | None, threshold: float | None) -> MaskSource:
    """What `passes.shrink` takes as masks: a mask file, block scores read with a threshold, or None."""
    if path is None and threshold is not None:
        raise CommandError("--threshold says how to read block scores: give their file or directory as --masks")
    return BlockScores(path, threshold) if path is not None and threshold is not None else path


def load_masked(directory: Path, masks: Path | None, threshold: float | None) -> nn.Module:
    """The model of a directory with masks multiplied into its weights: masks as for `mask_source`, None for none.

    Raises `CommandError` and `passes.MaskError`.
    """
    source = mask_source(masks, threshold)
    model = load_model(directory, masks_follow=source is not None)
    if isinstance(source, BlockScores):
        multiply_masks(model, source.masks({n: tuple(p.shape) for n, p in model.named_parameters()}))
    elif masks is not None:
        read = dict(TensorFile(masks))
        if wrong := next((name for name, mask in read.items() if mask.dtype is not torch.bool), None):
            raise CommandError(f"{masks}: {wrong} is {read[wrong].dtype}; masks are bool (block scores: --threshold)")
        multiply_masks(model, read)
    return model


def load_tokenizer(directory: Path) -> Any | None:
    """The directory's tokenizer, or None if it has none."""
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        return None
    try:
        return configs.read_tokenizer(directory, TRUSTED.get())
    except configs.ConfigError as error:
        raise CommandError(str(error)) from error


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Write a tokenizer into a model directory."""
    with new_files(directory) as staged:
        tokenizer.save_pretrained(staged)


def keep_processors(source: Path, directory: Path) -> None:
    """Copy what a pipeline needs besides model and tokenizer: how images, sounds and chats become inputs, and what
    sentence-transformers does with outputs."""
    with new_files(directory) as staged:
        for file in (*(source / name for name in _PROCESSORS), *_sentence_files(source)):
            if file.is_file():
                place = staged / file.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)


def _sentence_files(source: Path) -> Iterator[Path]:
    """The files of a sentence-transformers model besides those of its transformer: pooling and the like."""
    try:
        modules = json.loads((source / _SENTENCES[0]).read_text(encoding="utf-8"))
        paths = [Path(module["path"]) for module in modules if module["path"]]
    except (OSError, ValueError, TypeError, LookupError):
        return
    yield from (source / name for name in _SENTENCES)
    for path in paths:
        if not path.is_absolute() and ".." not in path.parts:
            yield from sorted((source / path).glob("*.json"))
            yield from sorted((source / path).glob("*.safetensors"))


def read_config(directory: Path) -> Any:
    """The config of a model directory. Raises `CommandError`."""
    if not directory.is_dir():
        raise CommandError(f"{directory} is no directory; give one that holds config.json and model.safetensors")
    if not (directory / "config.json").exists():
        raise CommandError(f"{directory} has no config.json, so it is no Hugging Face model directory")
    try:
        return configs.read_config(directory, TRUSTED.get())
    except configs.ConfigError as error:
        raise CommandError(str(error)) from error


def pretrained(model_class: Any, directory: Path, **options: Any) -> tuple[nn.Module, list[str]]:
    """A model with a directory's weights, and the names of weights it has none for. Raises `CommandError`."""
    if not any((directory / name).exists() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        raise CommandError(
            f"{directory} has no {SAFE_WEIGHTS_NAME}. Pickled weights (pytorch_model.bin) are not read: where you "
            "trust them, load the model in Python and save_pretrained() it again"
        )
    try:
        model, info = model_class.from_pretrained(
            directory,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=TRUSTED.get(),
            ignore_mismatched_sizes=True,  # listed below, where transformers would only say that there are some
            output_loading_info=True,
            **options,
        )
    except (ValueError, OSError, RuntimeError, TypeError, LookupError, SafetensorError) as error:
        raise CommandError(f"{directory}: the weights cannot be read: {error}") from error
    head = f"{model.base_model_prefix}."
    wrong = [entry for entry in info["mismatched_keys"] if entry[0].startswith(head) or "num_labels" not in options]
    if wrong:
        name, stored, expected = min(wrong)
        raise CommandError(
            f"{directory}: the weights do not fit config.json: {name} is {tuple(stored)}, by the config "
            f"{tuple(expected)} ({len(wrong)} such weights)"
        )
    return model, sorted({*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])})


def some(names: list[str], limit: int = 4) -> str:
    """A list in words, cut short."""
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")

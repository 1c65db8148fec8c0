"""config.json and tokenizers through transformers, which runs code of a model's directory only where it is asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from torch import nn


class ConfigError(ValueError):
    """A config or tokenizer cannot be read; the message names the file and says what to do."""


def read_config(directory: str | Path, trust_remote_code: bool = False) -> Any:
    """The config of a local model directory. Raises `ConfigError`, and nothing else."""
    file = Path(directory) / "config.json"
    try:
        return transformers.AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # each model has a class of its own for them: anything can come out of it
        raise ConfigError(f"{file}: {_explain(error, trust_remote_code)}") from error


def read_tokenizer(directory: str | Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a local model directory. Raises `ConfigError`, and nothing else."""
    try:
        return transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise ConfigError(f"{directory}: the tokenizer: {_explain(error, trust_remote_code)}") from error


def read_image_processor(directory: str | Path, trust_remote_code: bool = False) -> Any:
    """The image processor of a local model directory. Raises `ConfigError`, and nothing else."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise ConfigError(f"{directory}: the image processor: {_explain(error, trust_remote_code)}") from error


def model_class(config: Any, directory: str | Path, trust_remote_code: bool = False) -> type[nn.Module] | None:
    """The class that ``architectures`` names first, transformers' or the directory's own; None for none."""
    names = getattr(config, "architectures", None)
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str):
        return None
    found = getattr(transformers, name, None)
    own = getattr(config, "auto_map", None)
    if found is None and trust_remote_code and isinstance(own, dict):
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        reference = next((r for r in own.values() if isinstance(r, str) and r.rpartition(".")[2] == name), None)
        found = get_class_from_dynamic_module(reference, str(directory)) if reference else None
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def _explain(error: Exception, trusted: bool) -> str:
    text = str(error).strip()
    if not trusted and "trust_remote_code" in text:
        return (
            "it brings Python code of its own (auto_map), which is not run unasked. If you trust it, pass "
            "trust_remote_code=True, or --trust-remote-code on the command line"
        )
    first = " ".join(text.split("\n\n")[0].split())  # says what; the others, how to update transformers
    return first if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {first}"

"""Which task some data are for, its rows, and the processor of a model that reads them: for `bpc prune`, `bpc eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpc import configs
from bpc.cli.models import load_tokenizer, read_config, some
from bpc.cli.trust import TRUSTED
from bpc.tasks import TASKS, Task
from bpc.tasks.classes import all_names
from bpc.tasks.data import read_rows
from bpc.terminal.errors import CommandError

if TYPE_CHECKING:
    from datasets import Dataset

UNNAMED = "LABEL_"  # transformers' names of classes that nobody named


def column_names(options: Sequence[str] | None, **short: str | None) -> dict[str, str]:
    """{what the task calls a column: its name} from ``--columns role=COLUMN`` and the short options."""
    found = {role: column for role, column in short.items() if column is not None}
    for option in options or ():
        role, separator, column = option.partition("=")
        if not (role and separator and column):
            raise CommandError(f"--columns {option}: give role=COLUMN, e.g. text=sentence")
        found[role] = column
    return found


def named_rows(source: str, names: Mapping[str, str], split: str = "train") -> Dataset:
    """The rows of a source, with columns called what tasks call them. Raises `CommandError` and `TaskError`."""
    rows = read_rows(source, split)
    for role, column in names.items():
        if column not in rows.column_names:
            raise CommandError(f"{source} has no column {column!r}; its columns: {', '.join(rows.column_names)}")
        if role == column:
            continue
        if role in rows.column_names:
            rows = rows.remove_columns(role)
        rows = rows.rename_column(column, role)
    return rows


def task_of(name: str | None, rows: Dataset, source: str) -> type[Task]:
    """The task of that name, or the one that reads most of the columns. Raises `CommandError`."""
    if name is not None:
        if name not in TASKS:
            raise CommandError(f"--task {name}: tasks are {', '.join(TASKS)}")
        return TASKS[name]
    fitting = [task for task in TASKS.values() if task.fits(rows)]
    if not fitting:
        known = "; ".join(f"{task.name}: {', '.join(task.roles)}" for task in TASKS.values())
        raise CommandError(
            f"{source} has the columns {', '.join(rows.column_names)}, which fit no task. Name them: --columns "
            f"role=COLUMN. Tasks and their columns: {known}"
        )
    return max(fitting, key=lambda task: len(task.roles.keys() & set(rows.column_names)))


def processor_for(task: type[Task], directory: Path) -> Any:
    """The model's tokenizer, or its image processor. Raises `CommandError`."""
    if "image" in task.roles:
        try:
            return configs.read_image_processor(directory, TRUSTED.get())
        except configs.ConfigError as error:
            raise CommandError(str(error)) from error
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise CommandError(
            f"{directory} has no tokenizer (tokenizer.json); save one there: "
            f"tokenizer.save_pretrained({str(directory)!r})"
        )
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token  # as is usual for models that only generate
    return tokenizer


def length_for(task: type[Task], directory: Path, asked: int | None) -> int:
    """Tokens an example is cut to: those asked for, or what is usual and the model has positions for."""
    positions = getattr(read_config(directory), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return asked or task.usual_length
    if asked is not None and asked > positions:
        raise CommandError(f"--max-length {asked}: the model has positions for {positions} tokens; give at most that")
    return asked or min(task.usual_length, positions)


def class_order(directory: Path, names: Sequence[str]) -> list[str]:
    """The classes in the order of a model's own, where it has exactly these; else as they are."""
    own = own_classes(directory)
    return own if sorted(own) == sorted(names) else list(names)


def classes_for(task: Task, rows: Dataset, directory: Path) -> list[str] | None:
    """The classes of a trained model in the words of its data. Raises `CommandError` for classes it does not know."""
    if task.class_column is None:
        return None
    names, own = all_names(rows, task.class_column), own_classes(directory)
    if set(names) <= set(own):
        return own
    if len(names) == len(own) and all(name.startswith(UNNAMED) for name in own):
        return names
    raise CommandError(
        f"{directory} knows the classes {some(own)}, the data have {some(names)}: rename the data's labels"
    )


def own_classes(directory: Path) -> list[str]:
    """The classes of a model by its config."""
    return [str(name) for _, name in sorted(read_config(directory).id2label.items())]

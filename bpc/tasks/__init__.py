"""What a task asks of data, of a model and of its answers: `bpc prune` and `bpc eval` know no task by name."""

from __future__ import annotations

from bpc.tasks.answers import QuestionAnswering
from bpc.tasks.images import ImageClassification
from bpc.tasks.language import LanguageModelling, Sequence2Sequence
from bpc.tasks.sequences import Classification, MultiLabel, Regression
from bpc.tasks.task import Task, TaskError
from bpc.tasks.tokens import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Classification,
        Regression,
        MultiLabel,
        TokenClassification,
        QuestionAnswering,
        Sequence2Sequence,
        LanguageModelling,
        ImageClassification,
    )
}

__all__ = ["TASKS", "Task", "TaskError"]

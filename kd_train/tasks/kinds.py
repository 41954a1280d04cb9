"""The table of tasks, by the ``kind`` that a study names, and the type of a study's ``task``."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag

from kd_train.tasks.base import TaskSpec
from kd_train.tasks.classification import ClassificationTask
from kd_train.tasks.language_modelling import LanguageModellingTask
from kd_train.tasks.regression import RegressionTask
from kd_train.tasks.sequence_to_sequence import SequenceToSequenceTask

# The first is the kind of a task that names none.
_SPECS = (ClassificationTask, RegressionTask, SequenceToSequenceTask, LanguageModellingTask)
TASKS: Mapping[str, type[TaskSpec]] = {spec.model_fields["kind"].default: spec for spec in _SPECS}


def _kind_of(task: Any) -> str:
    kind = task.get("kind", next(iter(TASKS))) if isinstance(task, dict) else getattr(task, "kind", "")
    return str(kind)


if TYPE_CHECKING:
    AnyTask = TaskSpec
else:
    AnyTask = Annotated[
        reduce(or_, (Annotated[spec, Tag(kind)] for kind, spec in TASKS.items())),
        Discriminator(
            _kind_of,
            custom_error_type="unknown_kind",
            custom_error_message=f"unknown kind of task; allowed for task.kind are {', '.join(TASKS)}",
        ),
    ]

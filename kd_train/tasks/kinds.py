"""The table of tasks, by the ``kind`` that a study names."""

from collections.abc import Mapping

from kd_train.tasks.base import TaskSpec
from kd_train.tasks.classification import ClassificationTask
from kd_train.tasks.language_modelling import LanguageModellingTask
from kd_train.tasks.regression import RegressionTask
from kd_train.tasks.sequence_to_sequence import SequenceToSequenceTask

_SPECS = (ClassificationTask, RegressionTask, SequenceToSequenceTask, LanguageModellingTask)
TASKS: Mapping[str, type[TaskSpec]] = {spec.model_fields["kind"].default: spec for spec in _SPECS}
DEFAULT_KIND = next(iter(TASKS))

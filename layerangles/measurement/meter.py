"""AngleMeter, the core of every measurement: states of teacher and students in, labelled angles out.

An update adds a batch of states to sums of fixed size, meters of disjoint parts of the data merge into the meter of the
whole, and everything reported follows from the sums.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from layerangles.geometry.preprocessing import Preprocessing, TeacherStatistics
from layerangles.geometry.shared_space import Tokens
from layerangles.geometry.student_tower import StudentTower
from layerangles.layers import Tower
from layerangles.models.states import check_finite
from layerangles.results import labelling
from layerangles.results.combination import combine_parts
from layerangles.results.derivation import derived
from layerangles.settings import MeasurementSettings
from layerangles.sums.angle_sums import AngleSums
from layerangles.sums.clustered_mean import ClusteredMean
from layerangles.sums.relation_sums import RelationSums
from layerangles.sums.token_sample import TokenSample

States = Mapping[Tower, Float[Tensor, "layer token dim"]]


class TeacherBatch(NamedTuple):
    """The teacher's states on a batch of whole examples.

    Attributes:
        states: states of all layers at the valid tokens, by tower.
        tokens: these tokens, by tower.
        n_examples: number of examples in the batch, including those without a valid token.
    """

    states: States
    tokens: Mapping[Tower, Tokens]
    n_examples: int


class StudentStates(NamedTuple):
    """States of a student at the same tokens, by tower, in its own space.

    Attributes:
        trained: states of the student.
        untrained: states of an untrained student of the same architecture, for nulls that need them.
    """

    trained: States
    untrained: States | None = None


class TeacherMeter:
    """Means and variances of the teacher's states, by tower; mergeable, of fixed size."""

    def __init__(self, towers: Iterable[Tower]) -> None:
        """Statistics over no tokens."""
        self.statistics = {tower: TeacherStatistics() for tower in towers}

    def update(self, teacher: TeacherBatch, _students: Iterable[StudentStates] = ()) -> None:
        """Add a batch; only the teacher's states matter."""
        for tower, statistics in self.statistics.items():
            statistics.update(teacher.states[tower])

    def merge(self, other: "TeacherMeter") -> "TeacherMeter":
        """Statistics over both parts of the data."""
        both = type(self)(())
        both.statistics = {tower: one.merge(other.statistics[tower]) for tower, one in self.statistics.items()}
        return both


@dataclass
class _TowerSums:
    """The sums of one student tower; None for those that are not measured."""

    angles: AngleSums
    relations: RelationSums | None = None
    sample: TokenSample | None = None

    @classmethod
    def zeros(
        cls, tower: StudentTower, n_teacher: int, settings: MeasurementSettings, device: torch.device | str
    ) -> "_TowerSums":
        n, device = len(tower.layers), torch.device(device)
        sums = cls(AngleSums(n, n_teacher, nulls=settings.nulls, device=device))
        if settings.alternatives != "none":
            sums.relations = RelationSums(n, n_teacher, tower.matched_rows, device=device)
        if settings.alternatives == "all":
            sums.sample = TokenSample()
        return sums

    def merge(self, other: "_TowerSums") -> "_TowerSums":
        return _TowerSums(
            self.angles.merge(other.angles),
            self.relations.merge(other.relations) if self.relations and other.relations else None,
            self.sample.merge(other.sample) if self.sample and other.sample else None,
        )


class AngleMeter:
    """Angles and alternative measures of student towers; mergeable, of fixed size.

    Attributes:
        towers: the student towers.
        n_examples: number of examples measured.
    """

    aggregation = "per token, then mean over tokens; intervals clustered by example"

    def __init__(
        self,
        towers: Sequence[StudentTower],
        n_teacher_layers: Mapping[Tower, int],
        settings: MeasurementSettings,
        preprocessing: Mapping[Tower, Preprocessing],
        device: torch.device | str = "cpu",
    ) -> None:
        """A meter of no tokens.

        Args:
            towers: the student towers, in the order in which :meth:`update` gets their states.
            n_teacher_layers: number of the teacher's layers, the embedding output included, by tower.
            settings: what to measure, and how.
            preprocessing: the preprocessing of all states, by tower.
            device: device of the sums.
        """
        self.towers = tuple(towers)
        self._n_teacher = dict(n_teacher_layers)
        self._settings = settings
        self._preprocessing = dict(preprocessing)
        self._sums = [_TowerSums.zeros(one, n_teacher_layers[one.tower], settings, device) for one in towers]
        self._teacher = TeacherMeter([one.tower for one in towers] if settings.alternatives != "none" else ())
        self.n_examples = 0

    def update(self, teacher: TeacherBatch, students: Iterable[StudentStates]) -> None:
        """Add a batch of whole examples.

        Args:
            teacher: the teacher's states at the valid tokens, and these tokens.
            students: the states for each of :attr:`towers`, one at a time; they may be empty for a tower without layers
                to measure.

        Raises:
            InputError: states are not finite.
        """
        self.n_examples += teacher.n_examples
        self._teacher.update(teacher)
        for one, sums, states in zip(self.towers, self._sums, students, strict=True):
            if one.layers:
                self._update_tower(one, sums, teacher, states)

    def _update_tower(
        self, tower: StudentTower, sums: _TowerSums, teacher: TeacherBatch, student: StudentStates
    ) -> None:
        targets, tokens = teacher.states[tower.tower], teacher.tokens[tower.tower]
        states = student.trained[tower.tower]
        vertex = tower.vertex(states)
        untrained = None if student.untrained is None else tower.vertex(student.untrained[tower.tower])
        spaces = tower.spaces(self._settings.space, targets, vertex, untrained, self._preprocessing[tower.tower])
        try:
            sums.angles.update(spaces, tokens)
        except ValueError:  # say whose states these were; looking beforehand would cost a pass over all
            check_finite(targets, "the teacher")
            check_finite(vertex, tower.student)
            raise
        if sums.relations is not None:
            (space,) = spaces  # alternatives are measured in teacher space alone
            sums.relations.update(space.teacher, space.vertex, tokens.example)
        if sums.sample is not None:
            sums.sample.update(targets, states[list(tower.layers)], tokens.key, tokens.position)

    def merge(self, other: "AngleMeter") -> "AngleMeter":
        """The meter of both parts of the data, equal to that of the whole up to float64 rounding.

        Raises:
            ValueError: the two measure different layers or nulls.
        """
        both = copy.copy(self)
        both._sums = [a.merge(b) for a, b in zip(self._sums, other._sums, strict=True)]
        both._teacher = self._teacher.merge(other._teacher)
        both.n_examples = self.n_examples + other.n_examples
        return both

    def __getstate__(self) -> dict[str, Any]:
        # Maps are larger than all sums, and a copy in another process is only merged, which needs none.
        return vars(self) | {"towers": [replace(one, maps=()) for one in self.towers], "_preprocessing": {}}

    def angles(self) -> ClusteredMean:
        """Mean angles in degrees of all layers and pairs of all towers, concatenated."""
        means = [sums.angles.angle for sums in self._sums]
        return ClusteredMean(
            *(torch.cat([getattr(mean, one.name).flatten() for mean in means]) for one in fields(ClusteredMean))
        )

    def parts(self) -> list[xr.Dataset]:
        """Labelled sums of each tower; smaller than the meter, which may hold samples of tokens."""
        return [self._labelled(*pair) for pair in zip(self.towers, self._sums, strict=True)]

    def _labelled(self, tower: StudentTower, sums: _TowerSums) -> xr.Dataset:
        n_teacher = self._n_teacher[tower.tower]
        parts = [labelling.label_sums(sums.angles, tower, n_teacher)]
        if sums.relations is not None:
            parts.append(labelling.label_sums(sums.relations, tower, n_teacher))
        if sums.sample is not None:
            parts.append(labelling.label_sample(sums.sample, tower, n_teacher))
        return labelling.label_student(xr.merge(parts), tower, steps=self._settings.steps)

    def compute(self, earlier: Sequence[xr.Dataset] = ()) -> xr.Dataset:
        """Labelled means and intervals, with ``n_examples`` and ``aggregation`` as attributes.

        Args:
            earlier: the :meth:`parts` of other students on the same data, which come before these.
        """
        dataset = derived(combine_parts([*earlier, *self.parts()]), self._settings.confidence)
        if self._teacher.statistics:
            dataset = dataset.assign(labelling.label_top_dimensions(self._teacher.statistics))
        return dataset.assign_attrs(n_examples=self.n_examples, aggregation=self.aggregation)

"""Maps fitted to the data, from each student layer to the teacher layer that forward matching assigns to it."""

from collections.abc import Iterable, Sequence

from layerangles.geometry.student_tower import StudentTower
from layerangles.measurement.meter import StudentStates, TeacherBatch
from layerangles.settings import FitKind
from layerangles.sums.map_fitting import MapSums, fit_map, target_layer


class MapMeter:
    """Sums that the maps of student towers are fitted to, with the interface of a meter of angles."""

    def __init__(self, towers: Sequence[StudentTower]) -> None:
        """Sums over no tokens."""
        self._shapes = [(one.tower, one.n_layers) for one in towers]
        self._sums = [[MapSums() for _ in range(one.n_layers)] for one in towers]

    def update(self, teacher: TeacherBatch, students: Iterable[StudentStates]) -> None:
        """Add a batch; as :meth:`layerangles.measurement.meter.AngleMeter.update`."""
        for (tower, n_layers), by_layer, states in zip(self._shapes, self._sums, students, strict=True):
            targets, key = teacher.states[tower], teacher.tokens[tower].key
            for layer, sums in enumerate(by_layer):
                target = targets[target_layer(layer, n_layers - 1, len(targets) - 1)]
                sums.update(states.trained[tower][layer], target, key)

    def merge(self, other: "MapMeter") -> "MapMeter":
        """Sums over both parts of the data."""
        both = type(self)(())
        both._shapes = self._shapes
        both._sums = [
            [one.merge(two) for one, two in zip(*by_layer, strict=True)]
            for by_layer in zip(self._sums, other._sums, strict=True)
        ]
        return both

    def fitted(self, towers: Sequence[StudentTower], kind: FitKind) -> list[StudentTower]:
        """The towers with their fitted maps."""
        maps = [[fit_map(sums, kind) for sums in by_layer] for by_layer in self._sums]
        return [
            tower.fitted([one.map for one in of_tower], [one.r2 for one in of_tower])
            for tower, of_tower in zip(towers, maps, strict=True)
        ]

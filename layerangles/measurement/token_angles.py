"""Angles of single tokens, and the sentences with the most extreme ones."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from layerangles.errors import InputError
from layerangles.geometry.angles import vertex_angles_deg
from layerangles.geometry.preprocessing import Preprocessing
from layerangles.layers import Space, Tower
from layerangles.measurement.meter import States
from layerangles.measurement.passes import ModelRunner, device_of
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint
from layerangles.models.pairing import student_tower
from layerangles.models.texts import Batch, EncodedTexts, Text

_STATES_KEPT = 8  # students whose states stay in memory
_BATCH_SIZE = 32


@dataclass(frozen=True)
class Piece:
    """A token as written in its text; ``angle_deg`` is NaN where it has no angle or is not valid."""

    text: str
    angle_deg: float


@dataclass(frozen=True)
class Sentence:
    """A text with the angle at each of its tokens.

    Attributes:
        pieces: its tokens.
        extreme: the index of the token that the sentence is shown for.
    """

    pieces: list[Piece]
    extreme: int


@dataclass(frozen=True)
class TokenAngles:
    """The angles at all valid tokens.

    Attributes:
        angle_deg: degrees, 0 to 180; NaN where the student's state is the teacher's.
        example: the number of each token's example, in the order of :class:`EncodedTexts.batches`.
        place: each token's position in its example.
        ids: the token ids of every example.
    """

    angle_deg: Float[Tensor, " token"]
    example: Int[Tensor, " token"]
    place: Int[Tensor, " token"]
    ids: dict[int, list[int]]

    def extremes(self, n: int, *, largest: bool) -> list[tuple[int, int]]:
        """``(example, place)`` of the n smallest or largest angles, at most one per example, the most extreme first."""
        order = (-self.angle_deg if largest else self.angle_deg).argsort()  # NaN last in both
        found: dict[int, int] = {}
        for token in order.tolist():
            if len(found) == n or bool(self.angle_deg[token].isnan()):
                break
            found.setdefault(int(self.example[token]), int(self.place[token]))
        return list(found.items())


class TokenReader:
    """Runs a teacher and its students over a few texts and keeps their states; not safe for concurrent use.

    Args:
        teacher: the teacher.
        texts: a few texts; all their states are kept in memory.
        max_length: tokens after which a text is cut.
        device: as for :func:`layerangles.measure_angles`.
    """

    def __init__(
        self, teacher: ModelCheckpoint, texts: Sequence[Text], *, max_length: int = 128, device: str = "auto"
    ) -> None:
        self._teacher = teacher
        self._tokenizer = teacher.load_tokenizer()
        self._encoded = EncodedTexts.from_texts(texts, self._tokenizer, max_length=max_length, config=teacher.config)
        self._runner = ModelRunner(device_of(device))
        self._students: OrderedDict[str, list[States]] = OrderedDict()

    @cached_property
    def _batches(self) -> list[Batch]:
        return [batch.to(self._runner.device) for batch in self._encoded.batches(_BATCH_SIZE)]

    @cached_property
    def _targets(self) -> list[States]:
        return self._states(self._teacher)

    def _states(self, checkpoint: ModelCheckpoint) -> list[States]:
        model = self._runner.load(checkpoint)
        with torch.inference_mode():
            return [self._runner.states(model, batch) for batch in self._batches]

    def _of_student(self, student: StudentCheckpoint) -> list[States]:
        key = f"{student.path} {student.weights_sha256}"
        if key not in self._students:
            self._students[key] = self._states(student)
            while len(self._students) > _STATES_KEPT:
                self._students.popitem(last=False)
        self._students.move_to_end(key)
        return self._students[key]

    def angles(
        self, student: StudentCheckpoint, tower: Tower, layer: int, pair: tuple[int, int], space: Space = "teacher"
    ) -> TokenAngles:
        """The angle between two teacher layers, seen from a layer of a student, at every token.

        Raises:
            InputError: the space is gradient space, where single tokens have no angles, or the layer has no map.
        """
        if space == "gradient":
            raise InputError("in gradient space there are no angles of single tokens. Choose teacher or pull.")
        seen = student_tower(student, self._teacher, tower)
        if layer not in seen.layers:
            raise InputError(f"layer {layer} of {student.name} has no map, so that no angle is seen from it.")
        row = list(seen.layers).index(layer)
        raw = Preprocessing.of("raw")
        angles, examples, places, ids = [], [], [], {}
        for batch, targets, states in zip(self._batches, self._targets, self._of_student(student), strict=True):
            spaces = seen.spaces(space, targets[tower], seen.vertex(states[tower]), None, raw)
            own = next(one for one in spaces if one.rows.start <= row < one.rows.stop)
            vertex = own.vertex[row - own.rows.start : row - own.rows.start + 1]
            angles.append(vertex_angles_deg(own.teacher[list(pair)], vertex)[0, 0, 1].cpu())
            at = batch.valid[tower].nonzero().cpu()
            examples.append(batch.numbers[at[:, 0]].cpu())
            places.append(at[:, 1])
            name = "decoder_input_ids" if tower == "decoder" and "decoder_input_ids" in batch.inputs else "input_ids"
            for number, of, mask in zip(
                batch.numbers.tolist(), batch.inputs[name].tolist(), batch.valid[tower].tolist(), strict=True
            ):
                last = max((i for i, yes in enumerate(mask) if yes), default=-1)
                ids[number] = of[: last + 1]
        return TokenAngles(torch.cat(angles), torch.cat(examples), torch.cat(places), ids)

    def sentences(self, angles: TokenAngles, n: int, *, largest: bool) -> list[Sentence]:
        """The sentences with the most extreme tokens; each sentence occurs once."""
        return [self._sentence(angles, *of) for of in angles.extremes(n, largest=largest)]

    def _sentence(self, angles: TokenAngles, example: int, place: int) -> Sentence:
        mine = angles.example == example
        at = dict(zip(angles.place[mine].tolist(), angles.angle_deg[mine].tolist(), strict=True))
        texts = self._pieces(angles.ids[example])
        return Sentence([Piece(text, at.get(i, torch.nan)) for i, text in enumerate(texts)], place)

    def _pieces(self, ids: list[int]) -> list[str]:
        """The text that each token adds to the decoded tokens before it, which works with any tokenizer.

        Where several tokens make up one character, the last adds it and the others add nothing.
        """
        begun = [
            str(self._tokenizer.decode(ids[:n], clean_up_tokenization_spaces=False)) for n in range(1, len(ids) + 1)
        ]
        whole, ends = begun[-1] if begun else "", [0]
        for text in begun:
            alike = next((i for i, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), len(text))
            ends.append(max(ends[-1], alike))
        return [whole[start:end] for start, end in pairwise(ends)]

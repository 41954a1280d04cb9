"""A toy teacher with students of every shape."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ToyStudy:
    """A teacher of 4 blocks and width 32, with students of 2 and 3 blocks.

    Attributes:
        teacher: the teacher's directory.
        identity: 2 blocks, width 32, identity maps.
        deeper: 3 blocks, width 32, identity maps.
        learned: 2 blocks, width 24, learned maps with a bias for its layers 0 and 1 alone.
        wide_learned: 2 blocks, width 32, learned maps without a bias for its layers 1 and 2 alone.
        texts: the texts to measure on.
    """

    root: Path
    teacher: Path
    identity: Path
    deeper: Path
    learned: Path
    wide_learned: Path
    texts: list[str]

    @property
    def students(self) -> list[Path]:
        return [self.identity, self.deeper, self.learned, self.wide_learned]

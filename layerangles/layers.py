"""How layers are named: towers, layer numbers, and the place of the last layer.

Layer 0 is the embedding output, 1..L are the outputs of the blocks, counted within a tower.
"""

from typing import Literal

Tower = Literal["encoder", "decoder"]

LayerPair = tuple[int, int]
"""``(student_layer, teacher_layer)``."""

FinalNorm = Literal["pre", "post"]
"""Whether the last layer of a pre-norm model is taken before or after its final norm."""

Space = Literal["teacher", "pull", "gradient"]
"""Where angles are taken: between states, between the pulls of a matching loss on them, or between its gradients."""

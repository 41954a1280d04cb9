"""The angle pass against the bare forward passes of teacher and students: the sum of its parts as a share of them.

``with all nulls`` is the pass that measures every null besides. N3 takes an untrained student, whose bare forward
counts as one of the students'; its own extraction is in.

The share is taken from the sum of parts timed by themselves, since the difference of two totals drowns in noise.

Run: python benchmarks/angles.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from common import arguments, review_lengths
from transformers import BertConfig, BertModel

from layerangles.geometry.maps import MatchingMap
from layerangles.geometry.nulls import NULLS
from layerangles.geometry.shared_space import SharedSpace, Tokens
from layerangles.models.states import forward_with_states, valid_states
from layerangles.sums.angle_sums import AngleSums

BATCH_SIZE = 32


def model(width: int, layers: int) -> BertModel:
    """A random BERT with heads of 32 dimensions."""
    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32, intermediate_size=4 * width
    )
    return BertModel(config, add_pooling_layer=False).eval()


def batch(lengths: list[int]) -> dict[str, torch.Tensor]:
    """Random tokens of these lengths, padded to the longest."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(1000, 30000, mask.shape) * mask, "attention_mask": mask}


def timed(work: Callable[[], object]) -> float:
    """CPU seconds, which a busy neighbour disturbs least."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(width: int, student_layers: int, batches: list[dict[str, torch.Tensor]], rounds: int) -> dict[str, float]:
    """Median shares of the bare forwards, in percent."""
    teacher, student, untrained = model(width, 12), model(width, student_layers), model(width, student_layers)
    n_states = student_layers + 1
    plain, with_nulls = AngleSums(n_states, 13), AngleSums(n_states, 13, nulls=tuple(NULLS))
    maps = [MatchingMap(torch.randn(width, width)) for _ in range(n_states)]
    shares: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for inputs in batches:
            mask = inputs["attention_mask"].bool()
            example = mask.nonzero()[:, 0]
            order = torch.arange(len(example))
            tokens = Tokens(example, order.roll(len(example) // 2), example, order)
            forwards = timed(lambda: (teacher(**inputs), student(**inputs)))  # noqa: B023 - called at once
            unseen_forward = timed(lambda: untrained(**inputs))  # noqa: B023
            raw = [forward_with_states(m, inputs)[1]["encoder"] for m in (teacher, student, untrained)]
            kept: dict[str, torch.Tensor] = {}

            def extract(name: str, states: tuple[torch.Tensor, ...]) -> None:
                kept[name] = valid_states(states, mask)  # noqa: B023

            extraction = timed(lambda: (extract("teacher", raw[0]), extract("vertex", raw[1])))  # noqa: B023
            of_untrained = timed(lambda: extract("untrained", raw[2]))  # noqa: B023
            view = SharedSpace(slice(0, n_states), kept["teacher"], kept["vertex"], kept["untrained"])
            projection = timed(lambda: torch.stack([m.apply(s) for m, s in zip(maps, view.vertex, strict=True)]))  # noqa: B023
            angles = timed(lambda: plain.update([view], tokens))  # noqa: B023
            nulls = timed(lambda: with_nulls.update([view], tokens))  # noqa: B023
            if number:
                of_nulls = (extraction + of_untrained + nulls) / (forwards + unseen_forward)
                parts = {"extraction": extraction, "angles": angles, "projection": projection}
                for name, share in {"with all nulls": of_nulls, **{n: t / forwards for n, t in parts.items()}}.items():
                    shares.setdefault(name, []).append(100 * share)
    return {name: statistics.median(values) for name, values in shares.items()}


def main() -> None:
    """Print the shares for two widths and two depths."""
    chosen = arguments(__doc__ or "", rounds=5, batches=4)
    lengths = sorted(review_lengths(BATCH_SIZE * 60))
    # Batches of like length, as the pass makes them: a few from all over the range.
    starts = [
        round((i + 0.5) * len(lengths) / chosen.batches) // BATCH_SIZE * BATCH_SIZE for i in range(chosen.batches)
    ]
    torch.manual_seed(0)
    batches = [batch(lengths[start : start + BATCH_SIZE]) for start in starts]
    print(
        "\n12-layer teacher (13 states, 78 pairs); all student layers, the embedding output included; float32 forwards"
    )
    print("share of the bare forwards of teacher and student, percent (median)\n")
    print(
        f"{'width':>6}{'student layers':>16}{'extraction':>12}{'angles, sums, histogram':>25}{'together':>10}"
        f"{'maps W S, apart':>17}{'with all nulls':>16}"
    )
    with torch.inference_mode():
        for width in (384, 768):
            for student_layers in (3, 6):
                s = measure(width, student_layers, batches, chosen.rounds)
                together = s["extraction"] + s["angles"]
                print(
                    f"{width:>6}{student_layers:>16}{s['extraction']:>12.2f}{s['angles']:>25.2f}{together:>10.2f}"
                    f"{s['projection']:>17.2f}{s['with all nulls']:>16.2f}"
                )


if __name__ == "__main__":
    main()

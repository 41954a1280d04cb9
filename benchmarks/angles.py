"""The angle pass against the bare forward passes of teacher and students: the sum of its parts as a share of them.

The share is taken from the sum of parts timed by themselves, since the difference of two totals drowns in noise.

Run: python benchmarks/angles.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from common import arguments, review_lengths
from transformers import BertConfig, BertModel

from layerangles.maps import MatchingMap
from layerangles.states import counted_states, forward_with_states
from layerangles.streaming import AngleSums

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
    teacher, student = model(width, 12), model(width, student_layers)
    sums = AngleSums(student_layers + 1, 13)
    maps = [MatchingMap(torch.randn(width, width)) for _ in range(student_layers + 1)]
    shares: dict[str, list[float]] = {"extraction": [], "angles": [], "projection": []}
    for number in range(rounds + 1):
        for inputs in batches:
            mask = inputs["attention_mask"].bool()
            example = mask.nonzero()[:, 0]
            forwards = timed(lambda: (teacher(**inputs), student(**inputs)))  # noqa: B023 - called at once
            _, teacher_raw = forward_with_states(teacher, inputs)
            _, student_raw = forward_with_states(student, inputs)
            kept: list[torch.Tensor] = []

            def extract() -> None:
                kept.extend((counted_states(teacher_raw, mask), counted_states(student_raw, mask)))  # noqa: B023

            parts = {"extraction": timed(extract)}
            teacher_states, vertex = kept
            parts["projection"] = timed(lambda: torch.stack([m.apply(s) for m, s in zip(maps, vertex, strict=True)]))  # noqa: B023
            parts["angles"] = timed(lambda: sums.update(teacher_states, vertex, example))  # noqa: B023
            if number:
                for name, seconds in parts.items():
                    shares[name].append(100 * seconds / forwards)
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
        f"{'maps W S, apart':>17}"
    )
    with torch.inference_mode():
        for width in (384, 768):
            for student_layers in (3, 6):
                s = measure(width, student_layers, batches, chosen.rounds)
                together = s["extraction"] + s["angles"]
                print(
                    f"{width:>6}{student_layers:>16}{s['extraction']:>12.2f}{s['angles']:>25.2f}{together:>10.2f}"
                    f"{s['projection']:>17.2f}"
                )


if __name__ == "__main__":
    main()

"""Alternated timing, and batches with the lengths of real reviews, for all benchmarks.

Single timings on a shared machine are noise. All alternatives are therefore run in turn, round by round, in one
process with a fixed number of threads, and what is printed is the median over rounds of the *ratio* within a round.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """The command line of a benchmark: ``--threads``, ``--rounds``, and whatever numbers it takes."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in ({"threads": 1, "rounds": 9} | defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    chosen = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(chosen.threads)
    print(f"torch {torch.__version__}, {chosen.threads} thread(s) of {os.cpu_count()} cores, {chosen.rounds} rounds")
    return chosen


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Run every variant once a round; (wall, CPU) seconds of each. A first round warms up and is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            measured = (time.perf_counter() - wall, time.process_time() - cpu)
            if number:
                times[name].append(measured)
    return times


def report(times: Mapping[str, list[tuple[float, float]]], baseline: str) -> None:
    """Print medians, and how many times faster each variant is than the baseline."""
    print(f"{'':44}{'wall s':>9}{'CPU s':>9}{'× (wall)':>10}{'× (CPU)':>10}   against: {baseline}")
    for name, measured in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
        ratios = [ratio(times, baseline, name, clock) for clock in (0, 1)]
        print(f"{name:44}{wall:9.3f}{cpu:9.3f}{ratios[0]:10.2f}{ratios[1]:10.2f}")


def ratio(times: Mapping[str, list[tuple[float, float]]], slower: str, faster: str, clock: int) -> float:
    """The median over rounds of slower / faster; clock 0 is wall time, 1 is CPU time."""
    return statistics.median(s[clock] / f[clock] for s, f in zip(times[slower], times[faster], strict=True))


def review_lengths(n: int) -> list[int]:
    """Token counts of movie reviews, special tokens included (mean about 25, longest 64)."""
    from kd_train.data import embedded
    from layerangles.models.checkpoints import load_tokenizer

    texts = list(embedded.movie_reviews().splits["train"].texts[:n])
    tokenizer = load_tokenizer(embedded.model_path("all-MiniLM-L6-v2"))
    return [len(ids) for ids in tokenizer(texts, truncation=True, max_length=64)["input_ids"]]

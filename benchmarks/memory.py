"""Memory of the angle pass at 500 and at 5,000 examples: it must not grow with the data.

Every measurement is a process of its own; what is printed is the most it ever held (resident set). The 5,000 are the
500 ten times over, so that the longest batch is the same. The texts and their tokens are kept, about 1 KB an example.

Run: python benchmarks/memory.py
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = (500, 5000)


def measure_once(n_examples: int) -> None:
    """In a process of its own: measure, and print the peak in MiB."""
    import torch
    from transformers import AutoModel

    from kd_train.data import embedded
    from layerangles import measure_angles

    torch.set_num_threads(1)
    base = embedded.model_path("all-MiniLM-L6-v2")
    with tempfile.TemporaryDirectory() as folder:
        student = AutoModel.from_pretrained(base, num_hidden_layers=3)
        student.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            (Path(folder) / name).write_bytes((base / name).read_bytes())
        texts = list(embedded.movie_reviews().splits["train"].texts[:500]) * (n_examples // 500)
        result = measure_angles(folder, texts, teacher=base)
        assert result.dataset.attrs["n_examples"] == n_examples
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the peaks and their ratio."""
    peaks = []
    for size in SIZES:
        done = subprocess.run([sys.executable, __file__, str(size)], capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
        print(f"{size:6} examples: peak {peaks[-1]:7.0f} MiB")
    print(f"ratio {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_once(int(sys.argv[1]))
    else:
        main()

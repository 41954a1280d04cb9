"""Results are read, combined and summarised without torch, which takes seconds to import."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from layerangles import AngleResult
first, second = (AngleResult.load(f"examples/results/movie-reviews/angles/final-seed{seed}.nc") for seed in (1, 2))
both = AngleResult.concat_students([first, second])
both.summary("N1"), both.student_means(), both._repr_html_()
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_results_are_combined_and_summarised_without_torch() -> None:
    loaded = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True, cwd=ROOT).split()
    assert not {"torch", "transformers", "plotly"} & set(loaded)

"""Redraw the pictures of gallery.md by the page's own commands, which needs Chrome and a minute.

``python docs/gallery.py`` draws all of them, ``python docs/gallery.py forest gains`` those of some figures.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gallery.md"


def commands(page: Path = PAGE) -> list[list[str]]:
    """The arguments of the page's ``layerangles draw`` commands, in order."""
    blocks = re.findall(r"```\n(layerangles draw .*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.strip()]


def main(names: list[str]) -> int:
    """Run the commands of these figures, or all, from the root of the repository. Returns the number of failures."""
    program = Path(sys.executable).with_name("layerangles")
    failed = 0
    for arguments in commands():
        if names and arguments[1] not in names:
            continue
        print("layerangles", shlex.join(arguments), flush=True)
        failed += subprocess.run([program, *arguments, "--overwrite"], cwd=ROOT, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))

"""Make the pictures of gallery.md anew, by the page's own commands. Needs Chrome, and a minute.

All of them are made by ``python docs/gallery.py``, those of some figures by ``python docs/gallery.py forest gains``.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gallery.md"


def commands(page: Path = PAGE) -> list[list[str]]:
    """The arguments of the page's ``layerangles draw`` commands, in their order."""
    blocks = re.findall(r"```\n(layerangles draw .*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.strip()]


def main(names: list[str]) -> int:
    """Run the commands of these figures, or all, from the root of the repository; the number that failed."""
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

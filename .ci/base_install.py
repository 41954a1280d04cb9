"""Checks of the wheel without extras: run by the environment that holds it, outside the checkout.

    python base_install.py CHECKOUT

Measures two saved models, judges the example study, imports all that README imports, and sees that every command that
needs an extra says which.
"""

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import layerangles
from layerangles.extras import EXTRAS

LAYERANGLES = str(Path(sys.executable).with_name("layerangles"))
SENTENCE = "a film that is not only long but also good and bad in turn or at once the cast was fine"


def run(*arguments: object, code: int = 0, says: str = "") -> None:
    """Run ``layerangles``; leave unless it ends with this exit code and says this."""
    command = [LAYERANGLES, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print("$", *command[1:], flush=True)
    if done.returncode != code or says not in done.stdout + done.stderr:
        sys.exit(f"exit code {done.returncode}, expected {code} and {says!r}\n{done.stdout}\n{done.stderr}")


def write_models(folder: Path) -> None:
    """A teacher of four layers and a student of two, of one width and with one tokenizer; and texts."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = SENTENCE.split()
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, layers in (("teacher", 4), ("student", 2)):
        torch.manual_seed(layers)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": layers}
        BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder / name)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
            folder / name
        )
    lines = [" ".join(words[start : start + 6]) for start in range(12)]
    (folder / "texts.txt").write_text("\n".join(lines), encoding="utf-8")


def check(checkout: Path, folder: Path) -> None:
    """All checks, with what they write in a folder."""
    if Path(layerangles.__file__).is_relative_to(checkout) and ".venv" not in layerangles.__file__:
        sys.exit(f"layerangles comes from the checkout: {layerangles.__file__}")
    for extra, modules in EXTRAS.items():
        if extra != "notebooks" and any(map(find_spec, modules)):
            sys.exit(f"the base install brings a module of the extra {extra}: {', '.join(modules)}")
    write_models(folder)
    run("--help", says="verdict")
    run("env")
    models = ("--teacher", "teacher", "--student", "student", "--data", "texts.txt")
    run("angles", *models, "--null", "all", "--alternatives", "all", "--html", "maps.html", says="wrote maps.html")
    run("draw", "heatmap", "angles.nc", "-o", "map.html", says="wrote map.html")
    study = checkout / "examples" / "results" / "movie-reviews"
    run("verdict", study, says="undecided")
    run("report", study, "-o", "report.html", says="wrote report.html")
    run("plan", checkout / "examples" / "studies" / "movie-reviews.yaml", "--set", "teacher.model=teacher", code=0)
    for line in re.findall(r"^(?:from|import) .*$", (checkout / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        print(">>>", line, flush=True)
        exec(line, {})  # noqa: S102  # README's own lines
    small = ("--set", "teacher.model=teacher", "--output", "run")
    train = ("train", checkout / "examples" / "studies" / "movie-reviews.yaml", *small)
    run(*train, code=2, says="pip install 'layerangles[train]'")
    run(*train, "--executor", "local", code=2, says="pip install 'layerangles[slurm]'")
    run("compare", study, "--no-browser", code=2, says="pip install 'layerangles[app]'")
    run("draw", "heatmap", "angles.nc", "-o", "map.pdf", code=2, says="pip install 'layerangles[export]'")


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        check(root, Path(scratch))
    print("the base install is whole")

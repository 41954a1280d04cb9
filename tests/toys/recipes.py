"""The studies under ``examples/studies``, planned against the public configurations of their teachers."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import BartConfig, BertConfig, LlamaConfig, PretrainedConfig, Qwen3Config, T5Config

from kd_train.study.plan import StudyPlan, plan_study
from kd_train.study.study_file import Study, read_study

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "studies"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
GLUE = ("mnli-bert", "qqp-bert", "qnli-bert", "sst2-bert")
QWEN = ("hellaswag-qwen", "coqa-qwen")
PAPERS = (*GLUE, "dart-bart", "wmt16-t5", *QWEN)
IN_PROCESSES = tuple(name for name in RECIPES if name != "width-t5")  # that one refers to another for it

# Public sizes of the models; tests cannot plan studies with other models.
CONFIGURATIONS: dict[str, PretrainedConfig] = {
    "google-bert/bert-base-uncased": BertConfig(),
    "facebook/bart-large": BartConfig(),
    "google-t5/t5-base": T5Config(d_model=768, num_layers=12, num_heads=12, d_ff=3072),
    "Qwen/Qwen3-8B": Qwen3Config(
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
    ),
    "embedded/all-MiniLM-L6-v2": BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "embedded/SmolLM2-135M-Instruct": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "embedded/bart-letters-to-sounds": BartConfig(
        vocab_size=69,
        d_model=128,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=64,
    ),
}


def use_known_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take configurations of teachers from :data:`CONFIGURATIONS`, so that nothing is fetched."""

    def configuration(model: str, *, revision: str | None = None) -> PretrainedConfig:
        return type(CONFIGURATIONS[model])(**CONFIGURATIONS[model].to_dict())

    monkeypatch.setattr("kd_train.study.plan.load_config", configuration)
    monkeypatch.setattr("kd_train.data.embedded.model_path", Path)


def recipe(name: str, *overrides: str) -> Study:
    return read_study(FOLDER / f"{name}.yaml", overrides=overrides)


def planned(name: str, *overrides: str) -> StudyPlan:
    return plan_study(recipe(name, *overrides))


def opening_of(name: str) -> str:
    """The opening comment of a file, without comment signs."""
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line[1:] for line in lines[:end])


def commands_of(name: str) -> list[list[str]]:
    """The commands in the opening comment, split into words, for two processes."""
    text = re.sub(r"\\\n\s*", " ", opening_of(name))
    found = re.findall(r"((?:layerangles (?:plan|train) |accelerate launch ).*)", text)
    return [shlex.split(re.sub(r"\bN\b", "2", command.partition("   (")[0])) for command in found]


def overrides_of(command: list[str]) -> list[str]:
    return [value for option, value in pairwise(command) if option == "--set"]

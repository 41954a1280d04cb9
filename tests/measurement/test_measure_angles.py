"""The pass against an independent one: transformers' own states, example by example, in float64."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import stats
from toys.models import toy_texts, toy_tokenizer, write_model
from toys.results import assert_same_numbers
from toys.studies import ToyStudy
from transformers import AutoModel, AutoTokenizer, GPT2Config, GPT2Model

import layerangles
from layerangles import AngleResult, InputError, measure_angles, open_student
from layerangles.models.weights import weights_sha256
from layerangles.sums.angle_sums import N_BINS

Array = NDArray[np.float64]
N_LAYERS = 5  # of the teacher, the embedding output among them


def _hidden_states(path: Path, texts: Sequence[str], *, special_tokens: bool = True) -> Iterator[Array]:
    """For every text ``[layer, token, dim]`` in float64."""
    model = AutoModel.from_pretrained(path).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    for text in texts:
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        inner = slice(None) if special_tokens else slice(1, -1)
        yield np.stack([state[0, inner].numpy() for state in states])


def _reference_cosines(
    student: Path, teacher: Path, texts: Sequence[str], *, special_tokens: bool = True
) -> tuple[Array, Array]:
    """Cosines ``[student_layer, i, j, token]``, NaN for layers without a map; and every token's example."""
    maps_file = student / "matching_maps.safetensors"
    maps = {k: v.double().numpy() for k, v in load_file(maps_file).items()} if maps_file.exists() else None
    cosines, example = [], []
    pairs = zip(
        _hidden_states(teacher, texts, special_tokens=special_tokens),
        _hidden_states(student, texts, special_tokens=special_tokens),
        strict=True,
    )
    for e, (t, s) in enumerate(pairs):
        rows = []
        for layer, state in enumerate(s):
            weight = np.eye(t.shape[-1]) if maps is None else maps.get(f"encoder.{layer}.weight")
            if weight is None:
                rows.append(np.full((N_LAYERS, N_LAYERS, t.shape[1]), np.nan))
                continue
            bias = 0 if maps is None else maps.get(f"encoder.{layer}.bias", 0)
            spokes = t - (state @ weight.T + bias)
            unit = spokes / np.linalg.norm(spokes, axis=-1, keepdims=True)
            rows.append(np.einsum("ind,jnd->ijn", unit, unit))
        cosines.append(np.stack(rows))
        example += [e] * t.shape[1]
    return np.concatenate(cosines, axis=-1), np.array(example)


def _off_diagonal(values: Array) -> Array:
    i, j = np.nonzero(~np.eye(N_LAYERS, dtype=bool))
    return values[:, i, j]


def _of(result: AngleResult, variable: str, student: str) -> Array:
    data = result.dataset[variable].sel(student=student, tower="encoder")
    return data.dropna("student_layer", how="all").values if variable != "n_tokens" else data.values


# --- parity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["identity", "deeper", "learned", "wide-learned"])
def test_mean_cosines_and_angles_equal_an_independent_pass(study: ToyStudy, result: AngleResult, name: str) -> None:
    cosines, example = _reference_cosines(study.root / "students" / name, study.teacher, study.texts)
    n_layers = len(cosines)
    measured = result.dataset.sel(student=name, tower="encoder").isel(student_layer=slice(0, n_layers))
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    assert np.nanstd(_off_diagonal(angles).mean(axis=-1)) > 1  # degrees: there is something to get wrong
    for variable, expected, tolerance in (
        ("cosine", cosines.mean(axis=-1), 1e-6),
        ("angle_deg", angles.mean(axis=-1), 1e-4),
        ("acute_fraction", np.where(np.isnan(cosines), np.nan, cosines > 0).mean(axis=-1), 1e-12),
    ):
        difference = _off_diagonal(measured[variable].values) - _off_diagonal(expected)
        assert np.array_equal(np.isnan(difference), np.isnan(_off_diagonal(expected))), variable
        assert np.nanmax(np.abs(difference)) < tolerance, variable
        assert np.isnan(np.diagonal(measured[variable].values, axis1=1, axis2=2)).all(), variable
    by_layer = _off_diagonal(angles).mean(axis=(1, 2))
    np.testing.assert_allclose(measured["layer_angle_deg"], by_layer, rtol=0, atol=1e-4)
    acute = np.where(np.isnan(by_layer), np.nan, (_off_diagonal(cosines) > 0).mean(axis=(1, 2)))
    np.testing.assert_allclose(measured["layer_acute_fraction"], acute, rtol=0, atol=1e-12)
    assert (result.dataset["n_tokens"].sel(student=name).max() == len(example)).all()


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_are_clustered_by_example(study: ToyStudy, confidence: float) -> None:
    measured = measure_angles(study.identity, study.texts, device="cpu", confidence=confidence)
    cosines, example = _reference_cosines(study.identity, study.teacher, study.texts)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    n = len(study.texts)
    clusters = np.eye(n)[example]  # [token, example]

    def half_width(values: Array, per_token: int) -> Array:
        counts = per_token * clusters.sum(axis=0)
        mean = values.sum(axis=-1, keepdims=True) / counts.sum()
        residuals = values @ clusters - mean * counts
        error = np.sqrt(n / (n - 1) * (residuals**2).sum(axis=-1)) / counts.sum()
        return stats.t.ppf((1 + confidence) / 2, n - 1) * error

    data = measured.dataset.sel(student="identity", tower="encoder")
    pairs = _off_diagonal(half_width(angles, 1))
    for end, sign in (("ci_low", -1), ("ci_high", 1)):
        expected = _off_diagonal(angles.mean(axis=-1)) + sign * pairs
        np.testing.assert_allclose(_off_diagonal(data[end].values), expected, rtol=0, atol=1e-4)
    pooled = half_width(np.einsum("sijn->sn", np.where(np.eye(N_LAYERS)[..., None] > 0, 0, angles)) / 2, 10)
    np.testing.assert_allclose(data["layer_ci_high"] - data["layer_angle_deg"], pooled, rtol=0, atol=1e-4)
    np.testing.assert_allclose(data["layer_angle_deg"] - data["layer_ci_low"], pooled, rtol=0, atol=1e-4)


def test_more_confidence_needs_a_wider_interval_around_the_same_mean(study: ToyStudy) -> None:
    narrow, wide = (
        measure_angles(study.identity, study.texts, device="cpu", confidence=c).dataset for c in (0.5, 0.99)
    )
    assert narrow["angle_deg"].identical(wide["angle_deg"])
    inside = (wide.ci_low < narrow.ci_low) & (narrow.ci_low < narrow.angle_deg)
    inside &= (narrow.angle_deg < narrow.ci_high) & (narrow.ci_high < wide.ci_high)
    assert inside.where(narrow.angle_deg.notnull(), True).all()


def test_one_text_is_too_few_for_an_interval(study: ToyStudy) -> None:
    with pytest.raises(InputError, match=r"1 text\(s\) in 1 part\(s\) are too few: an interval needs two examples"):
        measure_angles(study.identity, ["a b c d"], device="cpu")


def test_special_tokens_are_left_out_when_asked(study: ToyStudy) -> None:
    measured = measure_angles(study.identity, study.texts, special_tokens=False, device="cpu")
    cosines, example = _reference_cosines(study.identity, study.teacher, study.texts, special_tokens=False)
    got = _of(measured, "cosine", "identity")
    assert np.abs(_off_diagonal(got) - _off_diagonal(cosines.mean(axis=-1))).max() < 1e-6
    assert measured.dataset["n_tokens"].max() == len(example) == sum(len(text.split()) for text in study.texts)
    assert measured.dataset.attrs["special_tokens"] == "left out"


# --- what changes nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_batch_size_changes_nothing(study: ToyStudy, result: AngleResult, batch_size: int) -> None:
    again = measure_angles(study.students, study.texts, device="cpu", batch_size=batch_size)
    assert_same_numbers(again, result)


def test_order_of_examples_changes_nothing_but_the_hash(study: ToyStudy, result: AngleResult) -> None:
    again = measure_angles(study.students, study.texts[::-1], device="cpu", batch_size=7)
    assert_same_numbers(again, result)
    assert again.dataset.attrs["data_sha256"] != result.dataset.attrs["data_sha256"]


def test_padding_side_of_the_tokenizer_changes_nothing(tmp_path: Path, study: ToyStudy, result: AngleResult) -> None:
    students = []
    for path in (study.identity, study.learned):
        students.append(Path(shutil.copytree(path, tmp_path / "students" / path.name)))
    teacher = Path(shutil.copytree(study.teacher, tmp_path / "teacher"))
    for path in (*students, teacher):
        toy_tokenizer(padding_side="left").save_pretrained(path)
        assert AutoTokenizer.from_pretrained(path).padding_side == "left"
    left = measure_angles(students, study.texts, teacher=teacher, device="cpu")
    right = AngleResult(result.dataset.sel(student=["identity", "learned"]).isel(student_layer=slice(0, 3)))
    assert_same_numbers(left, right)


def test_students_together_are_each_alone(study: ToyStudy, result: AngleResult) -> None:
    alone = AngleResult.concat_students([measure_angles(path, study.texts, device="cpu") for path in study.students])
    assert_same_numbers(alone, result, atol=1e-12)


def test_students_in_groups_are_all_together(study: ToyStudy, result: AngleResult) -> None:
    grouped = measure_angles(study.students, study.texts, device="cpu", students_per_pass=1)
    assert grouped == result


def test_measuring_again_gives_the_same(study: ToyStudy, result: AngleResult) -> None:
    assert measure_angles([open_student(s) for s in study.students], study.texts, device="cpu") == result


def test_bfloat16_is_near_and_recorded(study: ToyStudy) -> None:
    exact = measure_angles(study.identity, study.texts, device="cpu")
    rough = measure_angles(study.identity, study.texts, device="cpu", precision="bfloat16")
    difference = np.nanmean(np.abs((rough.dataset["angle_deg"] - exact.dataset["angle_deg"]).values))
    assert 0 < difference < 0.5
    assert rough.dataset.attrs["precision"] == "bfloat16"


def test_the_device_is_chosen_by_itself(study: ToyStudy) -> None:
    chosen = measure_angles(study.identity, study.texts[:4])
    assert chosen.dataset.attrs["device"] in ("cpu", "cuda", "mps", "xpu")
    assert_same_numbers(chosen, measure_angles(study.identity, study.texts[:4], device="cpu"), atol=0.01)


# --- what the result holds ------------------------------------------------------------------------------------


def test_result_has_the_dimensions_of_its_students(study: ToyStudy, result: AngleResult) -> None:
    data = result.dataset
    square = ("student", "tower", "student_layer", "layer_a", "layer_b")
    assert result.students == ["identity", "deeper", "learned", "wide-learned"]
    assert result.steps == []
    assert dict(data.sizes) == {
        "student": 4,
        "tower": 1,
        "student_layer": 4,
        "layer_a": N_LAYERS,
        "layer_b": N_LAYERS,
        "bin": N_BINS,
        "moment": 6,
        "null": 1,
    }
    for name in ("angle_deg", "cosine", "ci_low", "ci_high", "acute_fraction", "n_tokens", "n_degenerate"):
        assert data[name].dims == square, name
        assert data[name].equals(data[name].rename(layer_a="layer_b", layer_b="layer_a").transpose(*square)), name
    assert data["histogram"].dims == (*square, "bin")
    assert np.array_equal(data["histogram"].sum("bin"), data["n_tokens"])
    assert data["tower"].values.tolist() == ["encoder"]
    assert data["bin"].values[[0, N_BINS // 2, -1]].tolist() == [-1, 0, 0.99]
    assert data["angle_deg"].attrs["units"] == data["layer_ci_low"].attrs["units"] == "degree"
    for name in ("n_tokens", "n_degenerate", "histogram", "matched"):
        assert np.issubdtype(data[name].dtype, np.integer), name


def test_layers_that_are_not_there_or_have_no_map_are_nan(result: AngleResult) -> None:
    measured = result.dataset["layer_angle_deg"].sel(tower="encoder").notnull()
    assert measured.to_pandas().to_dict("index") == {
        "identity": {0: True, 1: True, 2: True, 3: False},
        "deeper": {0: True, 1: True, 2: True, 3: True},
        "learned": {0: True, 1: True, 2: False, 3: False},
        "wide-learned": {0: False, 1: True, 2: True, 3: False},
    }
    off_diagonal = ~np.eye(N_LAYERS, dtype=bool)
    for name in ("angle_deg", "cosine", "ci_low", "ci_high", "acute_fraction"):
        known = result.dataset[name].notnull().values[:, 0]
        assert np.array_equal(known, measured.values[:, :, None, None] & off_diagonal), name
    counted = (result.dataset["n_tokens"] > 0).values[:, 0]
    assert np.array_equal(counted, measured.values[:, :, None, None] & off_diagonal)


def test_matched_layers_are_recorded(result: AngleResult) -> None:
    matched = result.dataset["matched"].sel(tower="encoder")
    pairs = {name: np.argwhere(matched.sel(student=name).values == 1).tolist() for name in result.students}
    assert pairs == {
        "identity": [[0, 0], [1, 2]],
        "deeper": [[1, 1], [3, 4]],
        "learned": [[0, 0], [1, 2]],
        "wide-learned": [[1, 2], [2, 4]],
    }


def test_attributes_say_what_was_measured_and_how(study: ToyStudy, result: AngleResult) -> None:
    attributes = result.dataset.attrs
    expected = {
        "schema_version": 2,
        "space": "teacher",
        "convention": "layerangles",
        "preprocessing": "raw",
        "maps": "the student's",
        "shards": "0/1",
        "stopped": "all texts",
        "n_texts": len(study.texts),
        "final_norm": "pre",
        "special_tokens": "counted",
        "aggregation": "per token, then mean over tokens; intervals clustered by example",
        "confidence": 0.95,
        "precision": "float32",
        "device": "cpu",
        "max_length": 128,
        "n_examples": len(study.texts),
        "n_truncated": 0,
        "teacher": str(study.teacher),
        "teacher_weights_sha256": weights_sha256(study.teacher),
    }
    assert {key: attributes[key] for key in expected} == expected
    for key in ("data_sha256", "tokenizer_sha256"):
        assert len(attributes[key]) == 64
    versions = json.loads(attributes["versions"])
    assert versions["layerangles"] == layerangles.__version__
    assert versions["transformers"] == transformers.__version__
    assert versions.keys() == {"layerangles", "torch", "transformers", "numpy", "python"}
    hashes = result.dataset["weights_sha256"].values.tolist()
    assert hashes == [weights_sha256(path) for path in study.students]
    assert result.dataset["trained_steps"].values.tolist() == [0] * 4


def test_texts_that_were_cut_are_counted(study: ToyStudy) -> None:
    cut = measure_angles(study.identity, study.texts, device="cpu", max_length=6)
    n_words = [len(text.split()) for text in study.texts]
    assert cut.dataset.attrs["n_truncated"] == sum(n > 4 for n in n_words) > 0
    assert cut.dataset["n_tokens"].max() == sum(min(n, 4) + 2 for n in n_words)


def test_pairs_of_texts_are_measured_as_pairs(study: ToyStudy) -> None:
    texts = toy_texts(20, seed=3)
    pairs = list(zip(texts[:10], texts[10:], strict=True))
    measured = measure_angles(study.identity, pairs, device="cpu")
    models = [AutoModel.from_pretrained(path).double().eval() for path in (study.teacher, study.identity)]
    tokenizer = toy_tokenizer()
    cosines = []
    for first, second in pairs:
        inputs = tokenizer(first, second, return_tensors="pt")
        assert inputs["token_type_ids"].max() == 1
        with torch.inference_mode():
            t, s = (np.stack(m(**inputs, output_hidden_states=True).hidden_states)[:, 0] for m in models)
        unit = t[None] - s[:, None]
        unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
        cosines.append(np.einsum("sind,sjnd->sijn", unit, unit))
    expected = np.concatenate(cosines, axis=-1).mean(axis=-1)
    assert np.abs(_off_diagonal(_of(measured, "cosine", "identity")) - _off_diagonal(expected)).max() < 1e-6


def test_a_student_that_is_its_teacher_is_degenerate_at_its_own_layers(study: ToyStudy) -> None:
    data = measure_angles(study.teacher, study.texts, teacher=study.teacher, device="cpu").dataset
    n_tokens = sum(len(text.split()) + 2 for text in study.texts)
    at_own = np.eye(N_LAYERS, dtype=bool)
    own = at_own[:, :, None] | at_own[:, None]  # [student_layer, layer_a, layer_b]: one of the two is the student's
    off_diagonal = np.broadcast_to(~at_own, own.shape)
    assert (data["n_degenerate"].values[0, 0][own & off_diagonal] == n_tokens).all()
    assert (data["n_tokens"].values[0, 0][own] == 0).all()
    assert np.isnan(data["angle_deg"].values[0, 0][own]).all()
    assert (data["n_tokens"].values[0, 0][~own & off_diagonal] == n_tokens).all()
    assert np.isfinite(data["angle_deg"].values[0, 0][~own & off_diagonal]).all()


def test_a_student_that_was_never_matched_is_measured_by_identity_maps(
    study: ToyStudy, tmp_path: Path, result: AngleResult
) -> None:
    bare = write_model(tmp_path / "bare", AutoModel.from_pretrained(study.identity))
    measured = measure_angles([bare, study.identity], study.texts, teacher=study.teacher, device="cpu")
    assert measured.students == ["bare", "identity"]
    first, second = (measured.dataset.isel(student=i, drop=True) for i in range(2))
    assert first["angle_deg"].identical(second["angle_deg"])
    assert first["matched"].sum() == 0
    assert second["matched"].sum() == 2
    known = result.dataset["angle_deg"].sel(student="identity", drop=True).isel(student_layer=slice(0, 3))
    np.testing.assert_allclose(second["angle_deg"], known, atol=1e-6)


def test_final_norm_changes_only_the_last_layer_of_a_pre_norm_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer().backend_tokenizer)
    paths = []
    for name, n_layer in (("teacher", 4), ("student", 2)):
        config = GPT2Config(vocab_size=21, n_embd=32, n_layer=n_layer, n_head=4, bos_token_id=2, eos_token_id=3)
        paths.append(write_model(tmp_path / name, GPT2Model(config), tokenizer))
    teacher, student = paths
    texts = toy_texts(8)
    after = measure_angles(student, texts, teacher=teacher, final_norm="post", device="cpu")
    before = measure_angles(student, texts, teacher=teacher, device="cpu")
    assert before.dataset["tower"].values.tolist() == ["decoder"]
    assert [r.dataset.attrs["final_norm"] for r in (before, after)] == ["pre", "post"]
    cosines, _ = _reference_cosines(student, teacher, texts)  # transformers' states are "post"
    got = after.dataset["cosine"].values[0, 0]
    assert np.abs(_off_diagonal(got) - _off_diagonal(cosines.mean(axis=-1))).max() < 1e-5
    same = np.isclose(before.dataset["angle_deg"], after.dataset["angle_deg"], atol=1e-6, equal_nan=True)[0, 0]
    last = np.arange(N_LAYERS) == N_LAYERS - 1
    of_last = last[:, None] | last[None]
    assert same[:2, ~of_last].all()
    assert not same[:2, of_last & ~np.eye(N_LAYERS, dtype=bool)].any()
    assert not same[2, ~of_last & ~np.eye(N_LAYERS, dtype=bool)].any()

"""What widens a measurement: spaces, nulls, preprocessing, alternatives, fitted maps, shards, stopping early."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor
from toys.models import toy_bert, toy_texts, write_model, write_student
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError, measure_angles, open_student
from layerangles.measurement.measure_arrays import measure_arrays
from layerangles.measurement.passes import ModelRunner
from layerangles.models.checkpoints import ModelCheckpoint
from layerangles.models.states import forward_with_states, valid_states
from layerangles.models.texts import EncodedTexts

TEACHER, BLOCKS = "teacher", 4


def _measure(students: Any, texts: list[str], **settings: Any) -> xr.Dataset:
    return measure_angles(students, texts, device="cpu", **settings).dataset


def _all_states(study: ToyStudy, path: Path, model: Any = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Teacher states, student states in its own space, examples and partners; in float64, all texts in one batch."""
    teacher = ModelCheckpoint(study.teacher)
    encoded = EncodedTexts.from_texts(study.texts, teacher.load_tokenizer(), max_length=128, config=teacher.config)
    (batch,) = encoded.batches(1000)
    student = model or open_student(path).load_model()
    states = []
    for one in (teacher.load_model(), student):
        with torch.no_grad():
            _, by_tower = forward_with_states(one.double(), batch.inputs)
        states.append(valid_states(by_tower["encoder"], batch.valid["encoder"]))
    tokens = batch.tokens("encoder")
    return *states, tokens.example, tokens.partner


def _angles(arm_a: Tensor, arm_b: Tensor, vertex: Tensor) -> Tensor:
    """``[token]`` degrees, in float64."""
    a, b = arm_a - vertex, arm_b - vertex
    cosine = (a * b).sum(dim=-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return cosine.clamp(-1, 1).arccos().rad2deg()


# --- spaces ---------------------------------------------------------------------------------------------------


def test_pull_space_follows_its_definition(study: ToyStudy) -> None:
    data = _measure(study.learned, study.texts, space="pull", nulls=("N1", "N5")).sel(
        student="learned", tower="encoder"
    )
    teacher, student, _, partner = _all_states(study, study.learned)
    for layer in (0, 1):
        stored = open_student(study.learned).load_maps().by_layer["encoder", layer]
        weight = stored.weight.double()
        assert stored.bias is not None
        vertex = student[layer] @ weight.T + stored.bias.double()
        for a, b in ((0, 1), (2, 4)):
            of_cell = data.sel(student_layer=layer, layer_a=a, layer_b=b)
            pulled = [x @ weight for x in (teacher[a], teacher[b], vertex)]
            assert of_cell["angle_deg"].item() == pytest.approx(_angles(*pulled).mean().item(), abs=1e-3)
            other = _angles(pulled[0], pulled[1], pulled[2][partner]).mean().item()
            assert of_cell["null_angle_deg"].sel(null="N1").item() == pytest.approx(other, abs=1e-3)
    teacher_space = _measure(study.learned, study.texts).sel(student="learned", tower="encoder")
    difference = abs(data["angle_deg"] - teacher_space["angle_deg"])
    assert difference.max() > 1  # W is no rotation: the spaces differ


def test_pull_and_teacher_space_are_one_where_no_map_is(study: ToyStudy) -> None:
    pull, teacher = (_measure(study.identity, study.texts, space=space) for space in ("pull", "teacher"))
    assert pull["angle_deg"].equals(teacher["angle_deg"])


def test_gradient_space_equals_plain_backward_passes(study: ToyStudy) -> None:
    result = measure_angles(
        study.learned, study.texts, device="cpu", space="gradient", gradient_batches=2, batch_size=8
    )
    data = result.dataset.sel(student="learned", tower="encoder")
    teacher, student = ModelCheckpoint(study.teacher), open_student(study.learned)
    encoded = EncodedTexts.from_texts(study.texts, teacher.load_tokenizer(), max_length=128, config=teacher.config)
    batches = list(encoded.batches(8, seed=0))[:2]
    frozen, model = teacher.load_model().double(), student.load_model().double()
    maps = student.load_maps().by_layer

    def gradient(layers: tuple[int, ...], target: int) -> Tensor:
        model.zero_grad()
        for batch in batches:
            mask = batch.valid["encoder"]
            with torch.no_grad():
                wanted = valid_states(forward_with_states(frozen, batch.inputs)[1]["encoder"], mask)[target]
            states = valid_states(forward_with_states(model, batch.inputs)[1]["encoder"], mask)
            for layer in layers:
                stored = maps["encoder", layer]
                assert stored.bias is not None
                mapped = states[layer] @ stored.weight.double().T + stored.bias.double()
                (0.5 * (mapped - wanted).square().sum()).backward(retain_graph=True)
        return torch.cat([p.grad.flatten() if p.grad is not None else p.flatten() * 0 for p in model.parameters()])

    for layers, cosine in (((1,), data["cosine"].sel(student_layer=1)), ((0, 1), data["whole_cosine"])):
        one, two = gradient(layers, 1), gradient(layers, 4)
        expected = torch.dot(one, two) / (one.norm() * two.norm())
        assert cosine.sel(layer_a=1, layer_b=4).item() == pytest.approx(expected.item(), abs=1e-5)
    assert np.isnan(data["angle_deg"].sel(student_layer=2)).all()  # no map was trained for it
    assert result.summary()["angle_deg"].notna().all()
    assert result.dataset.attrs["n_examples"] == 16


# --- nulls ----------------------------------------------------------------------------------------------------


def test_an_untrained_student_is_the_architecture_with_random_weights(study: ToyStudy) -> None:
    data = _measure(study.learned, study.texts, nulls=("N3",)).sel(student="learned", tower="encoder", null="N3")
    student = open_student(study.learned)
    random = ModelRunner(torch.device("cpu")).untrained(student)
    trained = student.load_model().state_dict()
    torch.manual_seed(123)  # whatever was drawn before
    again = ModelRunner(torch.device("cpu")).untrained(student).state_dict()
    assert any(not torch.equal(w, trained[name]) for name, w in random.state_dict().items())
    assert all(torch.equal(w, again[name]) for name, w in random.state_dict().items())
    teacher, states, _, _ = _all_states(study, study.learned, random)
    stored = student.load_maps().by_layer["encoder", 1]
    assert stored.bias is not None
    vertex = states[1] @ stored.weight.double().T + stored.bias.double()
    got = data["null_angle_deg"].sel(student_layer=1, layer_a=1, layer_b=3).item()
    assert got == pytest.approx(_angles(teacher[1], teacher[3], vertex).mean().item(), abs=1e-3)


@pytest.mark.parametrize("change", [{"batch_size": 2}, {"batch_size": 6}, {"students_per_pass": 1}])
def test_nulls_depend_on_neither_batches_nor_company(study: ToyStudy, change: dict[str, int]) -> None:
    nulls = ("N0", "N1", "N2", "N3", "N4", "N5", "N6")
    whole = _measure(study.students, study.texts, nulls=nulls)
    other = _measure(study.students, study.texts, nulls=nulls, **change)
    for name in ("null_angle_deg", "excess_deg", "excess_low", "student_excess_high"):
        np.testing.assert_allclose(other[name], whole[name], atol=1e-4, err_msg=name)


def test_nulls_do_not_depend_on_the_order_of_the_texts(study: ToyStudy) -> None:
    forward, backward = (_measure(study.identity, texts) for texts in (study.texts, study.texts[::-1]))
    np.testing.assert_allclose(forward["excess_deg"], backward["excess_deg"], atol=1e-5)


# --- preprocessing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["centred", "z", "unit", "drop-2"])
def test_preprocessing_follows_its_definition(study: ToyStudy, kind: str) -> None:
    result = _measure(study.identity, study.texts, preprocessing=kind, nulls=("N6",))
    teacher, student, _, _ = _all_states(study, study.identity)
    pooled = teacher.flatten(0, 1)
    match kind:
        case "centred":
            teacher, student = teacher - pooled.mean(dim=0), student - pooled.mean(dim=0)
        case "z":
            teacher, student = ((x - pooled.mean(dim=0)) / pooled.std(dim=0, correction=0) for x in (teacher, student))
        case "unit":
            teacher, student = (x / x.norm(dim=-1, keepdim=True) for x in (teacher, student))
        case "drop-2":
            keep = pooled.mean(dim=0).square().argsort(descending=True)[2:]
            teacher, student = teacher[..., keep], student[..., keep]
    cell = result.sel(student="identity", tower="encoder", student_layer=2, layer_a=1, layer_b=3)
    assert cell["angle_deg"].item() == pytest.approx(
        _angles(teacher[1], teacher[3], student[2]).mean().item(), abs=1e-4
    )
    origin = _angles(teacher[1], teacher[3], torch.zeros_like(student[2])).mean().item()
    assert cell["null_angle_deg"].sel(null="N6").item() == pytest.approx(origin, abs=1e-4)
    assert result.attrs["preprocessing"] == kind


# --- alternatives ---------------------------------------------------------------------------------------------------


def test_alternatives_come_as_one_labelled_dataset(study: ToyStudy) -> None:
    data = _measure(study.students, study.texts, alternatives="all")
    teacher, student, _, _ = _all_states(study, study.identity)
    of_student = data.sel(student="identity", tower="encoder")
    distance = (teacher[2] - student[1]).norm(dim=-1).mean().item()
    got = of_student["distance_teacher_student"].sel(student_layer=1, layer_a=2).item()
    assert got == pytest.approx(distance, rel=1e-5)
    mean = teacher.mean(dim=0)
    ratio = (student[1] - mean).square().sum(dim=-1) / (teacher - mean).square().sum(dim=-1).mean(dim=0)
    assert of_student["common_mode_ratio"].sel(student_layer=1).item() == pytest.approx(ratio.mean().item(), rel=1e-5)
    assert of_student["common_mode_low"].sel(student_layer=1) < ratio.mean().item()
    structured = torch.nn.functional.cosine_similarity(teacher[0] - teacher[2], student[0] - student[1], dim=-1)
    got = of_student["structured_cosine"].sel(student_layer=0, student_layer_b=1).item()
    assert got == pytest.approx(structured.mean().item(), abs=1e-5)
    assert of_student["cka_teacher_teacher"].sel(layer_a=3, layer_b=3).item() == pytest.approx(1)
    assert of_student["recoverability_gap"].sel(layer_a=0).isnull().all()
    assert of_student["recoverability_gap"].sel(student_layer=1, layer_a=2).notnull()
    assert data["top_dimension_share"].sel(layer_a=1).sum() <= 1
    mean_of_layer = teacher[1].mean(dim=0)
    assert data["top_dimension"].sel(tower="encoder", layer_a=1, rank=1) == mean_of_layer.abs().argmax().item()
    learned = data.sel(student="learned", tower="encoder")
    for name in ("distance_teacher_student", "cka_teacher_student", "recoverability_gap", "common_mode_ratio"):
        assert learned[name].sel(student_layer=2).isnull().all(), name


# --- the paper's convention -----------------------------------------------------------------------------------


def test_the_papers_convention_follows_its_definition(study: ToyStudy) -> None:
    data = _measure(study.identity, study.texts, convention="paper", max_length=16, batch_size=8)
    teacher, student = ModelCheckpoint(study.teacher), open_student(study.identity)
    tokenizer = teacher.load_tokenizer()
    order = sorted(tokenizer(study.texts)["input_ids"], key=lambda ids: (len(ids), ids))
    models = teacher.load_model().double(), student.load_model().double()
    means, cosines = [], []
    for start in range(0, len(order), 8):
        ids = [row + [0] * (16 - len(row)) for row in order[start : start + 8]]
        inputs = {"input_ids": torch.tensor(ids)}
        inputs["attention_mask"] = (inputs["input_ids"] > 0).long()
        with torch.no_grad():
            t, s = (m(**inputs, output_hidden_states=True).hidden_states for m in models)
        u, v = t[1] - s[1], t[4] - s[1]
        cosine = (u * v).sum(dim=-1) / (u.norm(dim=-1) * v.norm(dim=-1) + 1e-6)
        means.append(cosine.mean())
        cosines.append(cosine.flatten())
    cell = data.sel(student="identity", tower="encoder", student_layer=1, layer_a=1, layer_b=4)
    assert cell["cosine"].item() == pytest.approx(torch.stack(means).mean().item(), abs=1e-5)
    expected, _ = np.histogram(torch.cat(cosines), bins=1000, range=(-1, 1))
    assert data.sizes["bin"] == 1000
    assert np.abs(cell["histogram"].values - expected).sum() <= 4  # a rounding may move a token to the next bin
    assert cell["histogram"].sum() == len(study.texts) * 16  # PAD counts
    assert data["cosine"].sel(student_layer=2).isnull().all()


# --- models that were never matched ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ridge", "orthogonal"])
def test_fitted_maps_serve_a_student_of_another_width(tmp_path: Path, study: ToyStudy, kind: str) -> None:
    stranger = write_model(tmp_path / "stranger", toy_bert(layers=2, width=24, seed=9))
    data = _measure(str(stranger), study.texts, teacher=study.teacher, fit=kind).sel(
        student="stranger", tower="encoder"
    )
    assert data["angle_deg"].notnull().any(["layer_a", "layer_b"]).all()
    assert (data["map_r2"] < 1).all()
    assert data["map_r2"].sel(student_layer=0) > 0.1  # the same embeddings' tokens: something can be read off
    assert data.attrs["maps"] == f"fitted: {kind}"
    with pytest.raises(InputError, match=r"learned has width 24, its teacher 32: no identity map leads"):
        _measure(study.learned, study.texts, fit="identity")
    with pytest.raises(InputError, match=r"stranger has width 24, the teacher 32.*--fit ridge"):
        _measure(str(stranger), study.texts, teacher=study.teacher)


def test_an_identity_map_gets_its_r2(study: ToyStudy) -> None:
    teacher_as_student = _measure(str(study.teacher), study.texts, teacher=study.teacher, fit="identity")
    assert teacher_as_student["map_r2"].values.ravel() == pytest.approx(1)
    other = _measure(study.deeper, study.texts, teacher=study.teacher, fit="identity")
    assert (other["map_r2"].sel(student_layer=3) < 0.5).all()


# --- plain arrays ---------------------------------------------------------------------------------------------


def test_arrays_give_what_the_models_give(study: ToyStudy) -> None:
    teacher, student, example, _ = _all_states(study, study.identity)
    nulls = ("N0", "N1", "N2", "N5", "N6")
    ours = measure_arrays(teacher.numpy(), {"identity": student.numpy()}, example, nulls=nulls, alternatives="all")
    data = _measure(study.identity, study.texts, nulls=nulls, alternatives="all")
    for name in ("angle_deg", "ci_high", "null_angle_deg", "excess_low", "common_mode_ratio", "cka_teacher_student"):
        np.testing.assert_allclose(ours.dataset[name], data[name], atol=1e-4, err_msg=name)


def test_arrays_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    teacher, student, example = rng.normal(size=(3, 8, 4)), rng.normal(size=(2, 8, 4)), [0, 0, 1, 1, 2, 2, 3, 3]
    for students, of, message in (
        ({}, example, "got no students"),
        ({"s": student[:, :7]}, example, "the states of 's' do not fit: teacher and vertex must cover the same tokens"),
        ({"s": student}, example[:7], "must name the example of each of 8 tokens"),
        ({"s": student}, [0] * 8, "two examples or more"),
        ({"s": student * np.nan}, example, "the states of s are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            measure_arrays(teacher, students, of)
    with pytest.raises(InputError, match="N3 needs an untrained student's model"):
        measure_arrays(teacher, {"s": student}, example, nulls=["N3"])


# --- shards, and stopping early -------------------------------------------------------------------------------


def test_shards_measured_apart_merge_to_the_whole(study: ToyStudy, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"nulls": ("N1", "N4")}
    shards = [measure_angles(study.students, study.texts, device="cpu", shard=(i, 3), **settings) for i in range(3)]
    loaded = [AngleResult.load(shard.save(tmp_path / f"{i}.nc")) for i, shard in enumerate(shards)]
    merged = AngleResult.merge_shards([loaded[2], loaded[0], loaded[1]])
    whole = measure_angles(study.students, study.texts, device="cpu", **settings)
    assert set(merged.dataset.data_vars) == set(whole.dataset.data_vars)
    for name, values in whole.dataset.data_vars.items():
        if values.dtype.kind == "f" and not str(name).startswith("sum_"):
            # Other batches: the models' own float32 rounds differently.
            np.testing.assert_allclose(merged.dataset[name], values, atol=1e-5, err_msg=str(name))
    assert merged.dataset.attrs["shards"] == "0,1,2/3"
    assert merged.dataset.attrs["n_examples"] == whole.dataset.attrs["n_examples"] == len(study.texts)
    assert sum(int(shard.dataset.attrs["n_examples"]) for shard in shards) == len(study.texts)
    assert (merged.dataset["n_tokens"] == whole.dataset["n_tokens"]).all()


def test_what_does_not_merge_is_refused(study: ToyStudy) -> None:
    def shard(i: int, n: int = 2, texts: list[str] | None = None, students: Any = None, **settings: Any) -> AngleResult:
        return measure_angles(students or study.identity, texts or study.texts, device="cpu", shard=(i, n), **settings)

    first = shard(0)
    for other, message in (
        (shard(0), r"the shards overlap: got 0/2, 0/2"),
        (shard(1, 3), r"the shards overlap: got 0/2, 1/3"),
        (shard(1, texts=toy_texts(seed=5)), r"not comparable: data_sha256 is"),
        (shard(1, special_tokens=False), r"not comparable: special_tokens is 'counted' in one and 'left out'"),
        (shard(1, students=study.deeper), r"the shards hold other students"),
        (shard(1, nulls=("N1", "N5")), r"the shards hold other students, steps or nulls"),
    ):
        with pytest.raises(InputError, match=message):
            AngleResult.merge_shards([first, other])
    with pytest.raises(InputError, match=r"its own maps or its own preprocessing"):
        AngleResult.merge_shards([shard(0, preprocessing="z"), shard(1, preprocessing="z")])
    with pytest.raises(InputError, match=r"gradient space or in the paper's convention are no sums"):
        AngleResult.merge_shards(
            [measure_angles(study.identity, study.texts, device="cpu", convention="paper", max_length=16)]
        )


def test_other_weights_do_not_merge(study: ToyStudy, tmp_path: Path) -> None:
    results = []
    for i in range(2):
        student = write_student(tmp_path / str(i) / "student", study.teacher, seed=i)
        results.append(measure_angles(student, study.texts, device="cpu", shard=(i, 2)))
    with pytest.raises(InputError, match=r"a student's weights_sha256 differ between the shards"):
        AngleResult.merge_shards(results)


def test_a_pass_ends_when_its_intervals_are_narrow_enough(study: ToyStudy) -> None:
    texts = toy_texts(400)
    settings: dict[str, Any] = {"batch_size": 4, "nulls": ("N1",)}
    stopped = _measure([study.identity, study.deeper], texts, until=3.0, **settings)
    assert 32 <= stopped.attrs["n_examples"] < 400
    assert stopped.attrs["stopped"] == "all intervals narrower than 3.0°"
    width = stopped["ci_high"] - stopped["ci_low"]
    assert width.max() < 3
    whole = _measure([study.identity, study.deeper], texts, until=0.001, **settings)
    assert whole.attrs["n_examples"] == 400
    assert whole.attrs["stopped"] == "all texts"
    everything = _measure([study.identity, study.deeper], texts, nulls=("N1",))
    np.testing.assert_allclose(whole["angle_deg"], everything["angle_deg"], rtol=1e-5)
    # The texts come in random order: no bias towards short ones, whose [CLS] and [SEP] weigh more.
    assert abs(stopped["angle_deg"] - everything["angle_deg"]).max() < 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nulls": ("N99",)}, r"no null 'N99'"),
        ({"preprocessing": "whitened"}, r"'whitened'"),
        ({"fit": "lasso"}, r"fit is 'lasso'; allowed are 'identity', 'ridge', 'orthogonal'"),
        ({"convention": "other"}, r"convention is 'other'"),
        ({"until": -1.0}, r"until is -1.0; allowed is a width in degrees above 0"),
        ({"shard": (2, 2)}, r"the shard is 2/2; allowed are 0/n to n-1/n"),
        ({"space": "pull", "preprocessing": "z"}, r"preprocessing is 'z'; with space=\"pull\" only 'raw' is allowed"),
        ({"space": "gradient", "alternatives": "sums"}, r"alternatives is 'sums'; with space=\"gradient\" only 'none'"),
        (
            {"convention": "paper"},
            r"every text is padded to max_length, here 128, and these models have positions for 64",
        ),
        ({"convention": "paper", "until": 1.0}, r"until is 1.0; with convention=\"paper\" only None"),
        ({"shard": (0, 20)}, r"24 text\(s\) in 20 part\(s\) are too few"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(study: ToyStudy, settings: dict[str, Any], message: str) -> None:
    # The import hook would refuse a value outside a Literal before the function itself can.
    unchecked = getattr(measure_angles, "__wrapped__", measure_angles)
    with pytest.raises(InputError, match=message):
        unchecked(study.identity, study.texts, device="cpu", **settings)

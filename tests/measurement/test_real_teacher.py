"""The whole pass on the embedded teacher, against float64 computed from transformers' own hidden states."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from kd_train.data import embedded
from kd_train.matching.strategies import Strategy, layer_pairs
from kd_train.students.construction import build_student
from kd_train.students.student_plan import plan_student
from kd_train.students.student_spec import StudentSpec
from layerangles import measure_angles
from layerangles.geometry.maps import MatchingMaps
from layerangles.models.checkpoints import load_tokenizer, weights_sha256, write_student
from layerangles.models.matching_file import Matching, TeacherReference, TowerMatching

PAIRS = layer_pairs(Strategy(kind="forward"), 3, 6)


def real_student(folder: Path, base: Path) -> Path:
    """Blocks 2, 4, 6 of the teacher, moved a little as training would."""
    torch.manual_seed(0)
    teacher = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    plan = plan_student(StudentSpec(layers=3), teacher.config)
    student = build_student(teacher, plan, auto_model=AutoModelForSequenceClassification, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * parameter.std(correction=0))
    matching = Matching(
        teacher=TeacherReference(path=str(base), weights_sha256=weights_sha256(base)),
        strategy={"kind": "forward"},
        seed=0,
        step=1,
        towers={"encoder": TowerMatching(pairs=PAIRS, map="identity")},
        init={},
        loss={},
    )
    write_student(folder, student, load_tokenizer(base), matching, MatchingMaps())
    return folder


def real_states(base: Path, student: Path, texts: list[str]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Teacher's and student's states of every text alone, ``[layer, token, dim]``, in float64."""
    tokenizer = load_tokenizer(base)
    models = [AutoModel.from_pretrained(path, dtype=torch.float64).eval() for path in (base, student)]
    states = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            outputs = [model(**inputs, output_hidden_states=True) for model in models]
        teacher, vertex = (torch.stack(output.hidden_states)[:, 0] for output in outputs)
        states.append((teacher, vertex))
    return states


def cosines_of(teacher: torch.Tensor, vertex: torch.Tensor) -> torch.Tensor:
    """``[token, student_layer, i, j]``, token by token."""
    spokes = teacher[None] - vertex[:, None]
    unit = spokes / spokes.norm(dim=-1, keepdim=True)
    return torch.einsum("sind,sjnd->nsij", unit, unit)


def reference_cosines(base: Path, student: Path, texts: list[str]) -> np.ndarray:
    """Mean cosines ``[student_layer, i, j]``, example by example."""
    return torch.cat([cosines_of(*states) for states in real_states(base, student, texts)]).mean(dim=0).numpy()


def test_the_pass_on_the_real_teacher(tmp_path: Path) -> None:
    base = embedded.model_path("all-MiniLM-L6-v2")
    student = real_student(tmp_path / "student", base)
    texts = list(embedded.movie_reviews().splits["dev"].texts[:24])
    measured = measure_angles(student, texts, batch_size=7).dataset["cosine"].values[0, 0]
    off_diagonal = ~np.eye(7, dtype=bool)
    difference = np.abs(measured - reference_cosines(base, student, texts))[:, off_diagonal]
    assert difference.max() < 1e-5  # asked for is 1e-4
    assert np.ptp(measured[:, off_diagonal]) > 0.5  # and the angles are not all alike

    turned = measure_angles(student, texts[::-1], batch_size=24).dataset["cosine"].values[0, 0]
    assert np.nanmax(np.abs(turned - measured)) < 1e-6


def test_the_nulls_on_the_real_teacher(tmp_path: Path) -> None:
    base = embedded.model_path("all-MiniLM-L6-v2")
    student = real_student(tmp_path / "student", base)
    tokenizer = load_tokenizer(base)
    # The order in which partners are chosen: by length and token ids.
    ids = {text: tokenizer(text)["input_ids"] for text in embedded.movie_reviews().splits["dev"].texts[:8]}
    ordered = sorted(ids, key=lambda text: (len(ids[text]), ids[text]))
    states = real_states(base, student, ordered)
    data = measure_angles(student, ordered, nulls=("N0", "N1", "N5", "N6"), alternatives="sums").dataset
    found: dict[str, list[torch.Tensor]] = {null: [] for null in ("N0", "N1", "N5", "N6")}
    ratios = []
    for number, (teacher, vertex) in enumerate(states):
        squared, of_student = teacher.square().sum(dim=-1).T[:, None], vertex.square().sum(dim=-1).T[:, :, None]
        inverse = (squared + of_student).rsqrt()
        found["N0"].append(of_student[..., None] * inverse[..., None] * inverse[..., None, :])
        other = states[number ^ 1][1]  # the texts are paired, two and two
        length = other.shape[1]
        partner = (torch.arange(teacher.shape[1]) + length // 2) % length
        found["N1"].append(cosines_of(teacher, other[:, partner]))
        found["N5"].append(cosines_of(teacher, teacher.mean(dim=0, keepdim=True).expand_as(vertex)))
        found["N6"].append(cosines_of(teacher, torch.zeros_like(vertex)))
        spread = (teacher - teacher.mean(dim=0)).square().sum(dim=-1).mean(dim=0)
        ratios.append((vertex - teacher.mean(dim=0)).square().sum(dim=-1) / spread)
    off_diagonal = ~np.eye(7, dtype=bool)
    for null, cosines in found.items():
        angles = torch.cat(cosines).clamp(-1, 1).arccos().rad2deg().mean(dim=0).numpy()
        measured = data["null_angle_deg"].sel(null=null).values[0, 0]
        assert np.abs(measured - angles)[:, off_diagonal].max() < 1e-3, null
    expected = torch.cat(ratios, dim=1).mean(dim=1).numpy()
    np.testing.assert_allclose(data["common_mode_ratio"].values[0, 0], expected, rtol=1e-4)

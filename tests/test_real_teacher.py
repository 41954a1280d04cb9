"""The whole pass on the embedded teacher, against float64 computed from transformers' own hidden states."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from kd_train import embedded
from kd_train.matching import Strategy, layer_pairs
from kd_train.students import StudentSpec, build_student, plan_student
from layerangles import measure_angles
from layerangles.checkpoints import (
    Matching,
    TeacherReference,
    TowerMatching,
    load_tokenizer,
    weights_sha256,
    write_student,
)
from layerangles.maps import MatchingMaps

PAIRS = layer_pairs(Strategy(kind="forward"), 3, 6)


def real_student(folder: Path, base: Path) -> Path:
    """Blocks 2, 4, 6 of the teacher, moved a little as training would."""
    torch.manual_seed(0)
    teacher = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    student = build_student(teacher, plan_student(StudentSpec(layers=3), teacher.config), seed=0)
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


def reference_cosines(base: Path, student: Path, texts: list[str]) -> np.ndarray:
    """Mean cosines ``[student_layer, i, j]``, example by example and token by token, all in float64."""
    tokenizer = load_tokenizer(base)
    models = [AutoModel.from_pretrained(path, dtype=torch.float64).eval() for path in (base, student)]
    cosines = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            teacher, vertex = (
                torch.stack(model(**inputs, output_hidden_states=True).hidden_states)[:, 0] for model in models
            )
        spokes = teacher[None] - vertex[:, None]
        unit = spokes / spokes.norm(dim=-1, keepdim=True)
        cosines.append(torch.einsum("sind,sjnd->nsij", unit, unit).numpy())
    return np.concatenate(cosines).mean(axis=0)


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

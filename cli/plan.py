"""``layerangles plan``: what a study will do, before it does it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import print_json, print_table

if TYPE_CHECKING:
    from kd_train.plan import StudyPlan


def plan(
    study: Annotated[Path, typer.Argument(help="A study file (YAML), or a study's directory.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: key=value, such as student.layers=6.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print the layer map of every strategy, the sizes of the models, and what will be run.

    No weights are read and nothing is trained.

    Example: layerangles plan examples/studies/movie-reviews.yaml --set student.layers=2
    """
    from kd_train.plan import plan_study
    from kd_train.study import read_study

    planned = plan_study(read_study(study, overrides=set_ or []))
    if as_json:
        print_json(_content(planned))
        return
    _print(planned)


def _content(plan: "StudyPlan") -> dict[str, Any]:
    study = plan.study
    return {
        "study": study.name,
        "output": str(study.folder),
        "teacher": {
            "model": study.teacher.model,
            "layers": plan.teacher.num_hidden_layers,
            "width": plan.teacher.hidden_size,
            "parameters": plan.teacher_parameters,
            "finetune": study.teacher.finetune is not None,
        },
        "student": plan.student.model_dump() | {"parameters": plan.student_parameters},
        "pairs_are": "[student_layer, teacher_layer]; 0 is the embedding output, 1 the first block",
        "towers": {plan.tower: {label: [list(pair) for pair in pairs] for label, pairs in plan.pairs.items()}},
        "students": [name for seed in study.seeds for name in plan.student_names(seed)],
        "notes": plan.notes,
        "resolved": study.model_dump(mode="json"),
    }


def _print(plan: "StudyPlan") -> None:
    study, student = plan.study, plan.student
    typer.echo(f"Study {study.name} → {study.folder}\n")
    print_table(
        [
            {
                "": "teacher",
                "model": study.teacher.model,
                "layers": plan.teacher.num_hidden_layers,
                "width": plan.teacher.hidden_size,
                "parameters": plan.teacher_parameters,
            },
            {
                "": "each student",
                "model": _origin(plan),
                "layers": student.layers,
                "width": student.width,
                "parameters": plan.student_parameters,
            },
        ]
    )
    typer.echo("Which teacher layer each student layer is matched to (0 = embedding output, 1 = first block):\n")
    print_table(
        [
            {"strategy": label} | {f"student {layer}": _targets(pairs, layer) for layer in range(student.layers + 1)}
            for label, pairs in plan.pairs.items()
        ]
    )
    for note in plan.notes:
        typer.echo(f"Note: {note}")
    training = study.training
    length = f"{training.max_steps} steps" if training.max_steps else f"{training.epochs or 3:g} epochs"
    teacher = "fine-tune the teacher, then " if study.teacher.finetune else ""
    seeds = ", ".join(map(str, study.seeds))
    typer.echo(
        f"To run: {teacher}train {len(study.strategies) * len(study.seeds)} students "
        f"({len(study.strategies)} strategies × {len(study.seeds)} seeds: {seeds}) for {length}, "
        f"batch {training.batch_size}, learning rate {training.learning_rate:g}.\n"
        f"Loss: {study.loss.ce_weight:g} CE + {study.loss.kl_weight:g} KL + "
        f"{study.loss.hidden_weight:g} {study.loss.hidden} (maps: {student.map})."
    )


def _origin(plan: "StudyPlan") -> str:
    blocks = f"blocks copied from teacher {', '.join(map(str, plan.student.copied_layers))}"
    return f"{blocks if plan.student.copied_layers else 'random blocks'}; {plan.student.embeddings} embeddings"


def _targets(pairs: tuple[tuple[int, int], ...], student_layer: int) -> str:
    targets = [f"teacher {teacher}" for student, teacher in pairs if student == student_layer]
    return ", ".join(targets) or "–"

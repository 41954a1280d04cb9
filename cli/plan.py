"""``layerangles plan``: the models, pairs, comparisons and costs of a study, before it is run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .comparison_plan import comparisons_as_json, print_comparisons, seeds_needed
from .output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kd_train.students.student_plan import StudentPlan
    from kd_train.study.costs import ModelCost
    from kd_train.study.plan import MemberPlan, StudyPlan
    from layerangles.layers import Tower


def plan(
    study: Annotated[Path, typer.Argument(help="A study file (YAML), or a study's directory.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: key=value, such as student.layers=6.")
    ] = None,
    pilot: Annotated[
        Path | None,
        typer.Option(
            help="A study run with few seeds, or a CSV file of scores, from which the needed seeds are computed."
        ),
    ] = None,
    power: Annotated[float, typer.Option(help="Probability of a verdict that the number of seeds should give.")] = 0.8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print the layer map of every strategy, the sizes of the models, the comparisons, and the training to be run.

    No weights are read and nothing is trained. A pilot shows how many seeds the study needs to find strategies that do
    not differ equivalent within its margin.

    Example: layerangles plan examples/studies/movie-reviews.yaml --set verdict.margin=0.01 --pilot runs/pilot
    """
    from kd_train.study.study_file import read_study

    checked = read_study(study, overrides=set_ or [])  # before torch is imported, so that a typo is answered at once
    from kd_train.study.plan import plan_study

    planned = plan_study(checked)
    needed = seeds_needed(checked, pilot, power) if pilot is not None else []
    if as_json:
        print_json(_as_json(planned) | {"design": comparisons_as_json(checked), "needs": needed})
        return
    _print(planned)
    print_comparisons(checked, needed, power)


def _as_json(plan: "StudyPlan") -> dict[str, Any]:
    from kd_train.study.costs import estimate

    study = plan.study
    costs = estimate(plan)
    return {
        "study": study.name,
        "output": str(study.folder),
        "task": study.task.kind,
        "teacher": {
            "model": study.teacher.model,
            "layers": plan.teacher_depths,
            "width": plan.teacher.hidden_size,
            "parameters": costs.teacher.parameters,
            "finetune": study.teacher.finetune is not None,
        },
        "pairs_are": "[student_layer, teacher_layer]; 0 is the embedding output, 1 the first block",
        "towers": {
            tower: {label: [list(pair) for pair in member.pairs[tower]] for label, member in plan.members.items()}
            for tower in plan.towers
        },
        "strategies": {
            label: {
                "student": member.student.model_dump(mode="json"),
                "targets": member.strategy.targets,
                "changes": bool(member.strategy.change),
                "learning_rate": member.learning_rate,
                "loss": member.loss.model_dump(mode="json"),
                "estimate": costs.students[label]._asdict(),
            }
            for label, member in plan.members.items()
        },
        "students": [name for seed in study.seeds for name in plan.student_names(seed)],
        "notes": plan.notes,
        "resolved": study.model_dump(mode="json"),
    }


def _print(plan: "StudyPlan") -> None:
    from kd_train.study.costs import estimate

    study, costs = plan.study, estimate(plan)
    typer.echo(f"Study {study.name} → {study.folder}\n")
    rows = [_model_row("teacher", study.teacher.model, plan.teacher_depths, plan.teacher.hidden_size, costs.teacher)]
    alike: dict[str, list[str]] = {}  # labels by settings
    for label, member in plan.members.items():
        alike.setdefault(repr(member.student), []).append(label)
    for labels in alike.values():
        student = plan.members[labels[0]].student
        name = "each student" if len(alike) == 1 else ", ".join(labels)
        rows.append(_model_row(name, _origin(student), student.layers, student.width, costs.students[labels[0]]))
    print_table(rows, title="Models; memory and time of a step are estimates for texts of full length")
    for tower in plan.towers:
        of = f" in the {tower}" if len(plan.towers) > 1 else ""
        typer.echo(
            f"Which teacher layer each student layer is matched to{of} (0 = embedding output, 1 = first block):\n"
        )
        deepest = max(member.student.layers[tower] for member in plan.members.values())
        print_table(
            [
                {"strategy": label}
                | {f"student {layer}": _targets(member.pairs[tower], layer) for layer in range(deepest + 1)}
                | {"": _remark(member)}
                for label, member in plan.members.items()
            ]
        )
    for note in plan.notes:
        typer.echo(f"Note: {note}")
    _print_run(plan)


def _print_run(plan: "StudyPlan") -> None:
    study, training = plan.study, plan.study.training
    teacher = "fine-tune the teacher, then " if study.teacher.finetune else ""
    seeds = ", ".join(map(str, study.seeds))
    typer.echo(
        f"To run: {teacher}train {len(study.strategies) * len(study.seeds)} students "
        f"({len(study.strategies)} strategies × {len(study.seeds)} seeds: {seeds}) for "
        f"{training.in_words}.\nLoss: {study.loss.formula}."
    )


def _model_row(name: str, model: str, layers: "Mapping[Tower, int]", width: int, cost: "ModelCost") -> dict[str, Any]:
    from layerangles.notation import number

    return {
        "": name,
        "model": model,
        "layers": " + ".join(map(str, layers.values())),
        "width": width,
        "parameters": cost.parameters,
        "memory": f"{number(cost.memory_bytes / 2**20, 0)} MiB",
        "step": f"{number(cost.seconds_per_step, digits=2)} s",
    }


def _origin(student: "StudentPlan") -> str:
    copied = " and ".join(", ".join(map(str, layers)) for layers in student.copied_layers.values() if layers)
    blocks = f"blocks copied from teacher {copied}" if copied else "random blocks"
    frozen = "frozen " if student.freeze_embeddings else ""
    return f"{blocks}; {frozen}{student.embeddings} embeddings; {student.map} map"


def _remark(member: "MemberPlan") -> str:
    strategy = member.strategy
    targets = f"targets: {strategy.targets}" if strategy.is_control else ""
    return "; ".join(remark for remark in (targets, strategy.change) if remark)


def _targets(pairs: tuple[tuple[int, int], ...], student_layer: int) -> str:
    targets = [teacher for student, teacher in pairs if student == student_layer]
    if len(targets) > 2 and targets == list(range(targets[0], targets[-1] + 1)):
        return f"teacher {targets[0]} to {targets[-1]}"
    return f"teacher {', '.join(map(str, targets))}" if targets else "–"

"""Run a study: fine-tune the teacher, train the bank of every seed, write the students; resume where it stopped."""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import PreTrainedModel

from kd_train.batches.order import DataOrder, cut_by_length
from kd_train.matching.controls import TARGETS
from kd_train.matching.strategies import Strategy, forward_targets
from kd_train.students.construction import build_student
from kd_train.students.learned_maps import (
    build_maps,
    name_of,
    principal_directions,
    second_moments,
    set_principal,
    stored_maps,
)
from kd_train.students.lora import add_adapters, merged
from kd_train.study.folder_names import ENVIRONMENT_FILE, TEACHER
from kd_train.study.plan import MemberPlan, plan_study, teacher_path
from kd_train.study.score_logs import ExamplesLog, Measurement, MetricsLog
from kd_train.study.study_file import RESOLVED_FILE, Study, read_study, write_resolved
from kd_train.tasks.base import Task
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from kd_train.training.run import STOPPED_FILE, Run, TrainingContext, forget_states, mark_stopped
from kd_train.training.teachers import load_teacher, random_teacher, score_as_it_is, tuned_teacher
from layerangles.errors import InputError
from layerangles.extras import require_extra
from layerangles.files import atomic_write, full_disk_reported
from layerangles.layers import Tower
from layerangles.models.checkpoints import load_tokenizer, write_student
from layerangles.models.matching_file import MATCHING_FILE, Matching, TeacherReference, TowerMatching
from layerangles.models.weights import check_weights
from layerangles.versions import versions

# From how many texts the directions of pca maps are taken.
_PRINCIPAL_EXAMPLES = 512


def train_study(
    study: Study,
    *,
    resume: bool = False,
    overwrite: bool = False,
    teacher_cache: Path | None = None,
    device: str = "auto",
    seeds: Sequence[int] | None = None,
) -> Path:
    """Train everything that a study asks for, and return its directory.

    Args:
        study: what to do.
        resume: go on with a study that was interrupted; the students are those of the uninterrupted run.
        overwrite: replace a study that is there.
        teacher_cache: keep fine-tuned teachers here, and take them from here where data and recipe are the same.
        device: ``"auto"`` for the best present, or ``"cpu"``.
        seeds: only the students of these of the study's seeds; none of them for the teacher alone.

    Raises:
        InputError: anything wrong with the study, its models or its data; before any training.
        RunError: the disk is full, or the teacher's training failed.
    """
    require_extra("train", "training")
    plan = plan_study(study)
    accelerator = _accelerator(study, device)
    base = teacher_path(study.teacher)
    if accelerator.is_main_process:
        check_claim(study, resume=resume, overwrite=overwrite, inputs=[base])
    task: Task = study.task.load()
    check_weights(base)
    as_it_is = None
    if study.teacher.finetune is None:
        task = task.fitted_to(plan.teacher)
        as_it_is = load_teacher(base, study)
    tokenizer = load_tokenizer(base)
    features = {split: task.encode(split, tokenizer, plan.teacher) for split in task.splits}
    if accelerator.is_main_process:
        claim_study(study, resume=resume, overwrite=overwrite, inputs=[base])
    accelerator.wait_for_everyone()
    with full_disk_reported(study.folder):
        log = MetricsLog(study.folder, writes=accelerator.is_main_process)
        examples = ExamplesLog(study.folder, writes=accelerator.is_main_process)
        context = TrainingContext(plan, study.folder, task, features, tokenizer, accelerator, log, examples)
        if study.report_to:
            accelerator.init_trackers(study.name, config={"study": str(study.folder)})
        if as_it_is is not None:
            teacher, reference = as_it_is, score_as_it_is(context, base, as_it_is)
        elif study.teacher.finetune is not None:
            teacher, reference = tuned_teacher(context, base, study.teacher.finetune, teacher_cache)
        for seed in study.seeds if seeds is None else seeds:
            if not is_done(study, seed):
                _train_seed(context, teacher, reference, seed)
            forget_states(context, f"seed{seed}")
        accelerator.end_training()
    return study.folder


def is_done(study: Study, seed: int) -> bool:
    """Whether all students of a seed are there, or marked as stopped."""
    students = study.folder / "students"
    return all(
        any((students / f"{strategy.label}-seed{seed}" / file).exists() for file in (MATCHING_FILE, STOPPED_FILE))
        for strategy in study.strategies
    )


def teacher_is_done(study: Study) -> bool:
    """Whether the teacher is there, and scored."""
    is_there = study.teacher.finetune is None or (study.folder / TEACHER).exists()
    log = MetricsLog(study.folder, writes=False).read() if is_there else []
    return any(m.student == TEACHER and m.split == "dev" for m in log)


def check_claim(study: Study, *, resume: bool, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check, before any work, that the study may be written to its folder.

    Raises:
        InputError: something is there already, or something that the study is made from would be deleted.
    """
    folder = study.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RESOLVED_FILE).exists():
        raise InputError(f"{folder} exists and holds no study, so it is left alone. Choose another output.")
    if overwrite:
        _refuse_to_delete(folder, [*inputs, *map(Path, (study.task.files or {}).values())])
        return
    if not resume:
        raise InputError(
            f"{folder} holds a study already. Continue it with --resume, replace it with --overwrite, "
            "or choose another output."
        )
    before = read_study(folder).model_dump(mode="json")
    now = study.model_dump(mode="json")
    changed = [key for key in now if key not in ("output", "report_to") and before[key] != now[key]]
    if changed:
        raise InputError(
            f"{folder} was begun with another {' and another '.join(changed)}, so it cannot be resumed with this study "
            "file. Take the settings back, or start anew with --overwrite or another output."
        )


def claim_study(study: Study, *, resume: bool = False, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Make the study's folder, and write down what is run, unless :func:`check_claim` objects."""
    check_claim(study, resume=resume, overwrite=overwrite, inputs=inputs)
    if overwrite and study.folder.exists():
        shutil.rmtree(study.folder)
    study.folder.mkdir(parents=True, exist_ok=True)
    write_resolved(study, study.folder)
    if not (study.folder / ENVIRONMENT_FILE).exists():  # what resumes a study does not rewrite where it began
        with atomic_write(study.folder / ENVIRONMENT_FILE) as beside:
            beside.write_text(json.dumps(versions(), indent=2) + "\n", encoding="utf-8")


def _refuse_to_delete(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise if something that the study is made from lies in the directory that is to be replaced."""
    for path in inputs:
        if folder.resolve() in path.resolve().parents:
            raise InputError(
                f"{path} lies in {folder}, which is to be replaced and would be deleted first. Move it, or choose "
                "another output."
            )


def _accelerator(study: Study, device: str) -> Accelerator:
    if device not in ("auto", "cpu"):
        raise InputError(f"device is {device!r}; training takes auto (the best present) or cpu.")
    for tracker in study.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise InputError(f"report_to names {tracker}, which is not installed. Run: pip install {tracker}")
    on_gpu = device == "auto" and torch.cuda.is_available()
    if study.precision == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise InputError("precision is bfloat16, which this GPU does not have. Set it to float32.")
    # A process has one precision and one device; an earlier study's must not bind this one.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision="bf16" if study.precision == "bfloat16" else "no",
        log_with=list(study.report_to) or None,
        project_dir=study.folder / "trackers" if study.report_to else None,
    )
    for name, spec in (("training", study.training), ("teacher.finetune", study.teacher.finetune)):
        if spec is not None and accelerator.num_processes > spec.min_micro_batches:
            raise InputError(
                f"{accelerator.num_processes} processes share the micro-batches of a batch, and "
                f"{name}.min_micro_batches is {spec.min_micro_batches}: some would have nothing "
                f"to do. Set it to {accelerator.num_processes} (it "
                "changes the random numbers of dropout, so it stands in the study)."
            )
    return accelerator


def _train_seed(context: TrainingContext, teacher: PreTrainedModel, reference: TeacherReference, seed: int) -> None:
    """Train the bank of one seed and write its students."""
    spec, students = context.study.training, context.folder / "students"
    plans = context.plan.student_names(seed)
    total_steps = spec.total_steps(len(context.features["train"]))
    members = [_member(context, teacher, name, plan, seed) for name, plan in plans.items()]
    _set_principal_maps(context, teacher, list(zip(members, plans.values(), strict=True)))
    needs_random = any(TARGETS[member.targets].random_teacher for member in members)
    bank = Bank(
        members,
        teacher,
        optimizer=spec,
        total_steps=total_steps,
        seed=seed,
        accelerator=context.accelerator,
        random_teacher=random_teacher(context, seed) if needs_random else None,
        compiled=context.study.compile,
    )

    def write(member: Member, place: Path, step: int, *, final: bool = False) -> None:
        if not context.is_main:
            return
        best = context.best(member.name) if final else None
        matching = _matching(context, member, plans[member.name], place, reference, seed, step, best)
        model = merged(member.adapters) if member.adapters is not None else member.model
        write_student(place, model, context.tokenizer, matching, stored_maps(member.maps), overwrite=True)

    keep = set(spec.checkpoint_steps(total_steps))

    def keep_checkpoints(step: int) -> None:
        if step in keep:
            for member in bank.active:
                write(member, students / member.name / "checkpoints" / f"step-{step}", step)

    title = f"training {len(members)} students, seed {seed}"
    run = Run(context, bank, spec, total_steps, seed, f"seed{seed}", title, keep_checkpoints)
    final_steps = run.train()
    memory = bank.memory_bytes()
    for member in members:
        step = final_steps[member.name]
        _report_costs(context, member, step, memory[member.name])
        if member.stopped is not None and member.stopped.failed:
            if context.is_main:
                mark_stopped(students / member.name, member.stopped)
            continue
        context.evaluate_finally(member, step)
        write(member, students / member.name, step, final=True)


def _member(context: TrainingContext, teacher: PreTrainedModel, name: str, plan: MemberPlan, seed: int) -> Member:
    study = context.study
    order = DataOrder(len(context.features["train"]), study.training.batch_size, seed)
    assignments = context.plan.assignments(plan, steps_per_epoch=order.steps_per_epoch)
    model = build_student(teacher, plan.student, auto_model=study.task.auto_model(), seed=seed)
    matched = {tower: assignment.student_layers(0) for tower, assignment in assignments.items()}
    maps = build_maps(plan.student, context.plan.teacher.hidden_size, matched, seed=seed)
    lora = study.training.lora
    adapters = None
    if lora is not None:
        adapters = add_adapters(model, lora, classifier=bool(context.task.head()), seed=seed)
    return Member(
        name,
        model,
        assignments=assignments,
        maps=maps,
        loss=plan.loss,
        targets=plan.strategy.targets,
        learning_rate=plan.learning_rate,
        adapters=adapters,
    )


def _set_principal_maps(
    context: TrainingContext, teacher: PreTrainedModel, planned: Sequence[tuple[Member, MemberPlan]]
) -> None:
    """Give students with ``pca`` maps the principal directions of the teacher layers that they are matched to."""
    planned = [(member, plan) for member, plan in planned if plan.student.map == "pca"]
    if not planned:
        return
    targets = {
        (member.name, tower, layer): _targets_of(plan, tower, layer, teacher_layers)
        for member, plan in planned
        for tower, teacher_layers in context.plan.teacher_depths.items()
        for layer in range(plan.student.layers[tower] + 1)
    }
    for member, plan in planned:
        if plan.student.share_map:  # one map for all of them
            for tower in context.plan.teacher_depths:
                mine = [key for key in targets if key[:2] == (member.name, tower)]
                together = tuple(sorted({layer for key in mine for layer in targets[key]}))
                targets |= dict.fromkeys(mine, together)
    layers: dict[Tower, set[int]] = {}
    for (_, tower, _), of in targets.items():
        layers.setdefault(tower, set()).update(of)
    features = context.features["train"][:_PRINCIPAL_EXAMPLES]
    batches = [features[start : start + 32] for start in range(0, len(features), 32)]
    micro_batches = (
        micro_batch for batch in batches for micro_batch in cut_by_length(batch, context.task, context.tokenizer, 4)
    )
    moments = second_moments(teacher, micro_batches, layers, context.accelerator.device)
    for member, plan in planned:
        set_principal(
            member.maps,
            {
                name_of(tower, layer): principal_directions([moments[tower, t] for t in of], plan.student.width)
                for (name, tower, layer), of in targets.items()
                if name == member.name
            },
        )


def _targets_of(plan: MemberPlan, tower: Tower, layer: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher layers that a student layer is matched to; where there is none, forward's."""
    matched = tuple(t for s, t in plan.pairs.get(tower, ()) if s == layer)
    return matched or ((0, *forward_targets(plan.student.layers[tower], teacher_layers))[layer],)


def _report_costs(context: TrainingContext, member: Member, step: int, memory_bytes: int) -> None:
    seconds, steps = member.seconds
    costs = {"memory_mib": memory_bytes / 2**20} | ({"seconds_per_step": seconds / steps} if steps else {})
    context.report(Measurement(member.name, step, "train", name, value) for name, value in costs.items())


def _matching(
    context: TrainingContext,
    member: Member,
    plan: MemberPlan,
    place: Path,
    reference: TeacherReference,
    seed: int,
    step: int,
    best: Measurement | None,
) -> Matching:
    if reference.path == TEACHER:  # relative, so that the study can be moved
        reference = reference.model_copy(update={"path": os.path.relpath(context.folder / TEACHER, place)})
    strategy = plan.strategy
    records = {tower: assignment.record(step) for tower, assignment in member.assignments.items()}
    changing = {str(tower): record for tower, record in records.items() if record is not None}
    return Matching(
        teacher=reference,
        strategy=strategy.model_dump(mode="json", exclude_none=True, include=set(Strategy.model_fields)),
        seed=seed,
        mapping_seed=strategy.drawn_from,
        step=step,
        best=None if best is None else {"step": best.step, "metric": best.metric, "value": best.value},
        towers={
            tower: TowerMatching(pairs=assignment.pairs_before(step), map=plan.student.map)
            for tower, assignment in member.assignments.items()
        },
        init={
            "kind": "copied" if any(plan.student.copied_layers.values()) else "random",
            "copied_layers": {tower: list(layers) for tower, layers in plan.student.copied_layers.items()},
            "embeddings": plan.student.embeddings,
            "freeze_embeddings": plan.student.freeze_embeddings,
        },
        loss=plan.loss.model_dump(mode="json")
        | {"learning_rate": plan.learning_rate, "share_map": plan.student.share_map},
        targets=strategy.targets,
        changing=changing or None,
    )

"""The students of one seed: built, trained together, scored and written."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from kd_train.batches.order import DataOrder, cut_by_length
from kd_train.matching.controls import TARGETS
from kd_train.matching.strategies import Strategy
from kd_train.students.construction import build_student
from kd_train.students.learned_maps import build_maps, stored_maps
from kd_train.students.lora import add_adapters, merged
from kd_train.students.principal_maps import PrincipalMaps, set_principal_maps
from kd_train.study.folder_names import STUDENTS, TEACHER
from kd_train.study.plan import MemberPlan
from kd_train.study.score_logs import Measurement
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from kd_train.training.run import Run, TrainingContext
from kd_train.training.study_directory import mark_stopped
from kd_train.training.teachers import random_teacher
from layerangles.models.checkpoints import write_student
from layerangles.models.matching_file import Matching, TeacherReference, TowerMatching

# The number of texts from which the directions of pca maps are estimated.
_PRINCIPAL_EXAMPLES = 512


def train_seed(context: TrainingContext, teacher: PreTrainedModel, reference: TeacherReference, seed: int) -> None:
    """Train the bank of one seed and write its students."""
    spec, plans = context.study.training, context.plan.student_names(seed)
    total_steps = spec.total_steps(len(context.features["train"]))
    members = [_member(context, teacher, name, plan, seed) for name, plan in plans.items()]
    _set_principal_maps(context, teacher, members, plans)
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
    writer = _StudentWriter(context, reference, seed, plans)
    kept = set(spec.checkpoint_steps(total_steps))

    def keep_checkpoints(step: int) -> None:
        for member in bank.active if step in kept else ():
            writer.write(member, f"checkpoints/step-{step}", step)

    title = f"training {len(members)} students, seed {seed}"
    final_steps = Run(context, bank, spec, total_steps, seed, f"seed{seed}", title, keep_checkpoints).train()
    memory = bank.memory_bytes()
    for member in members:
        step = final_steps[member.name]
        _report_costs(context, member, step, memory[member.name])
        if member.stopped is not None and member.stopped.failed:
            if context.is_main:
                mark_stopped(context.folder / STUDENTS / member.name, member.stopped)
            continue
        context.evaluate_finally(member, step)
        writer.write(member, "", step, best=context.best(member.name))


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
    context: TrainingContext, teacher: PreTrainedModel, members: Sequence[Member], plans: Mapping[str, MemberPlan]
) -> None:
    """Set the weights of ``pca`` maps, from the teacher's states on the first training texts."""
    principal = [
        PrincipalMaps(member.maps, plan.student, plan.pairs)
        for member in members
        if (plan := plans[member.name]).student.map == "pca"
    ]
    if not principal:
        return
    features = context.features["train"][:_PRINCIPAL_EXAMPLES]
    batches = [features[start : start + 32] for start in range(0, len(features), 32)]
    micro_batches = (cut for batch in batches for cut in cut_by_length(batch, context.task, context.tokenizer, 4))
    set_principal_maps(principal, teacher, micro_batches, context.accelerator.device)


def _report_costs(context: TrainingContext, member: Member, step: int, memory_bytes: int) -> None:
    seconds, steps = member.seconds
    costs = {"memory_mib": memory_bytes / 2**20} | ({"seconds_per_step": seconds / steps} if steps else {})
    context.report(Measurement(member.name, step, "train", name, value) for name, value in costs.items())


@dataclass(frozen=True)
class _StudentWriter:
    """Writes the students of one seed into the study's directory."""

    context: TrainingContext
    reference: TeacherReference
    seed: int
    plans: Mapping[str, MemberPlan]

    def write(self, member: Member, place: str, step: int, *, best: Measurement | None = None) -> None:
        """Write a student after ``step`` steps to a place in its directory."""
        if not self.context.is_main:
            return
        folder = self.context.folder / STUDENTS / member.name / place
        model = merged(member.adapters) if member.adapters is not None else member.model
        matching = self._matching(member, folder, step, best)
        write_student(folder, model, self.context.tokenizer, matching, stored_maps(member.maps), overwrite=True)

    def _matching(self, member: Member, folder: Path, step: int, best: Measurement | None) -> Matching:
        plan, reference = self.plans[member.name], self.reference
        strategy, student = plan.strategy, plan.student
        if reference.path == TEACHER:  # relative, so that the study can be moved
            reference = reference.model_copy(update={"path": os.path.relpath(self.context.folder / TEACHER, folder)})
        records = {tower: assignment.record(step) for tower, assignment in member.assignments.items()}
        changing = {str(tower): record for tower, record in records.items() if record is not None}
        return Matching(
            teacher=reference,
            strategy=strategy.model_dump(mode="json", exclude_none=True, include=set(Strategy.model_fields)),
            seed=self.seed,
            mapping_seed=strategy.drawn_from,
            step=step,
            best=None if best is None else {"step": best.step, "metric": best.metric, "value": best.value},
            towers={
                tower: TowerMatching(pairs=assignment.pairs_before(step), map=student.map)
                for tower, assignment in member.assignments.items()
            },
            init={
                "kind": "copied" if any(student.copied_layers.values()) else "random",
                "copied_layers": {tower: list(layers) for tower, layers in student.copied_layers.items()},
                "embeddings": student.embeddings,
                "freeze_embeddings": student.freeze_embeddings,
            },
            loss=plan.loss.model_dump(mode="json")
            | {"learning_rate": plan.learning_rate, "share_map": student.share_map},
            targets=strategy.targets,
            changing=changing or None,
        )

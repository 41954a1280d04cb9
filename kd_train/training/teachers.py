"""The teacher of a study: used as it is, or fine-tuned into the study's directory."""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from kd_train.data import embedded
from kd_train.randomness import seeded
from kd_train.students.lora import add_adapters
from kd_train.study.folder_names import TEACHER
from kd_train.study.specs import FinetuneSpec
from kd_train.study.study_file import Study
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from kd_train.training.run import Run, TrainingContext, forget_states
from layerangles.errors import InputError, RunError
from layerangles.files import atomic_write
from layerangles.models.checkpoints import quiet_transformers
from layerangles.models.matching_file import TeacherReference
from layerangles.models.weights import weights_sha256


def load_teacher(path: Path, study: Study) -> PreTrainedModel:
    """Load a teacher with all its weights, head included.

    Raises:
        InputError: weights are missing in its file, which transformers would draw at random.
    """
    model: PreTrainedModel
    with quiet_transformers():
        model, info = study.task.auto_model().from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    if info["missing_keys"]:
        raise InputError(
            f"{path} does not know the task {study.task.kind}: its weights lack {sorted(info['missing_keys'])[0]}. "
            "Have it fine-tuned on the task first (teacher.finetune), or name a model that was."
        )
    return model


def random_teacher(context: TrainingContext, seed: int) -> PreTrainedModel:
    """The teacher's architecture with random weights, for controls."""
    with seeded(seed, "random teacher"):
        model: PreTrainedModel = context.study.task.auto_model().from_config(context.plan.teacher, dtype=torch.float32)
    return model


def score_as_it_is(context: TrainingContext, base: Path, teacher: PreTrainedModel) -> TeacherReference:
    """Score a teacher that needs no fine-tuning, unless it is scored, and return the reference for its students."""
    study = context.study
    _score(context, teacher, 0)
    is_local = embedded.is_embedded(study.teacher.model) or Path(study.teacher.model).is_dir()
    path = str(base.resolve()) if is_local else study.teacher.model
    return TeacherReference(path=path, revision=study.teacher.revision, weights_sha256=weights_sha256(base))


def tuned_teacher(
    context: TrainingContext, base: Path, spec: FinetuneSpec, cache: Path | None
) -> tuple[PreTrainedModel, TeacherReference]:
    """The teacher, scored, and fine-tuned into the study's directory unless it is there or in the cache."""
    place = context.folder / TEACHER
    total_steps = spec.total_steps(len(context.features["train"]))
    if not place.exists():
        cached = None if cache is None else cache / _recipe_hash(context, base, spec)
        if cached is not None and cached.exists():
            if context.is_main:
                _copy(cached, place)
        else:
            _finetune(context, base, spec, total_steps)
            if cached is not None and context.is_main:
                _copy(place, cached)
        context.accelerator.wait_for_everyone()
    forget_states(context, TEACHER)
    teacher = load_teacher(place, context.study)
    _score(context, teacher, total_steps)
    return teacher, TeacherReference(path=TEACHER, weights_sha256=weights_sha256(place))


def _score(context: TrainingContext, teacher: PreTrainedModel, step: int) -> None:
    """Score the teacher on all held-out splits, unless all its scores are logged."""
    scored = {(m.split, m.metric) for m in context.log.read() if (m.student, m.step) == (TEACHER, step)}
    if not {(split, metric) for split in context.held_out for metric in context.task.metrics} <= scored:
        context.log.forget_after(step - 1, [TEACHER], splits=context.held_out)
        context.evaluate(Member(TEACHER, teacher), step, context.held_out)


def _finetune(context: TrainingContext, base: Path, spec: FinetuneSpec, total_steps: int) -> None:
    model = _untuned(context, base, spec)
    classifier = bool(context.task.head())
    adapters = add_adapters(model, spec.lora, classifier=classifier, seed=spec.seed) if spec.lora else None
    member = Member(TEACHER, model, adapters=adapters)
    bank = Bank(
        [member],
        None,
        optimizer=spec,
        total_steps=total_steps,
        seed=spec.seed,
        accelerator=context.accelerator,
        compiled=context.study.compile,
    )
    run = Run(context, bank, spec, total_steps, spec.seed, TEACHER, "fine-tuning the teacher")
    run.train()
    if member.stopped is not None and member.stopped.failed:
        raise RunError(
            f"fine-tuning the teacher failed: {member.stopped.reason}. Lower teacher.finetune.learning_rate, or check "
            "the data; start anew with --overwrite."
        )
    if context.is_main:
        final = adapters.merge_and_unload() if adapters is not None else model
        with atomic_write(context.folder / TEACHER) as beside, quiet_transformers():
            final.save_pretrained(beside)
            context.tokenizer.save_pretrained(beside)


def _untuned(context: TrainingContext, base: Path, spec: FinetuneSpec) -> PreTrainedModel:
    auto_model, head = context.study.task.auto_model(), context.task.head()
    model: PreTrainedModel
    with seeded(spec.seed, "teacher head"), quiet_transformers():
        if context.study.teacher.init == "random":
            config = context.plan.teacher
            config.update(head)
            model = auto_model.from_config(config, dtype=torch.float32)
        else:
            model = auto_model.from_pretrained(
                base, dtype=torch.float32, use_safetensors=True, ignore_mismatched_sizes=True, **head
            )
    return model


def _recipe_hash(context: TrainingContext, base: Path, spec: FinetuneSpec) -> str:
    """Hash of everything that determines a fine-tuned teacher: recipe, base, data and machine."""
    content = [
        spec.model_dump(mode="json", exclude={"resume_every"}),
        context.study.precision,
        context.study.teacher.init,
        weights_sha256(base),
        context.task.head(),
        [
            torch.__version__,
            torch.get_num_threads(),
            context.accelerator.device.type,
            context.accelerator.num_processes,
        ],
    ]
    digest = hashlib.sha256(json.dumps(content).encode())
    for feature in context.features["train"]:
        digest.update(json.dumps(feature).encode())
    return digest.hexdigest()[:16]


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as beside:
        shutil.copytree(source, beside)

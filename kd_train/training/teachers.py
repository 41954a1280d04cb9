"""The teacher of a study: taken as it is, or fine-tuned into the study's directory."""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from kd_train.data import embedded
from kd_train.randomness import seeded
from kd_train.students.lora import add_adapters
from kd_train.study.study_file import FinetuneSpec, Study
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from kd_train.training.run import Run, Workshop, forget_states
from layerangles.errors import InputError, RunError
from layerangles.files import replacing
from layerangles.models.checkpoints import TeacherReference, quiet_transformers
from layerangles.models.weights import weights_sha256

TEACHER = "teacher"


def load_teacher(path: Path, study: Study) -> PreTrainedModel:
    """A teacher with all its weights, head included.

    Raises:
        InputError: some are not in its file; transformers would draw them at random.
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


def random_teacher(shop: Workshop, seed: int) -> PreTrainedModel:
    """The teacher's architecture with random weights, for controls."""
    with seeded(seed, "random teacher"):
        model: PreTrainedModel = shop.study.task.auto_model().from_config(shop.plan.teacher, dtype=torch.float32)
    return model


def score_as_it_is(shop: Workshop, base: Path, teacher: PreTrainedModel) -> TeacherReference:
    """Score a teacher that needs no fine-tuning, unless it is scored; what students say of it."""
    study = shop.study
    _score(shop, teacher, 0)
    is_local = embedded.is_embedded(study.teacher.model) or Path(study.teacher.model).is_dir()
    path = str(base.resolve()) if is_local else study.teacher.model
    return TeacherReference(path=path, revision=study.teacher.revision, weights_sha256=weights_sha256(base))


def tuned_teacher(
    shop: Workshop, base: Path, spec: FinetuneSpec, cache: Path | None
) -> tuple[PreTrainedModel, TeacherReference]:
    """The teacher, fine-tuned into the study's directory unless it is there or in the cache, and scored."""
    place = shop.folder / TEACHER
    total_steps = spec.total_steps(len(shop.features["train"]))
    if not place.exists():
        cached = None if cache is None else cache / _recipe_hash(shop, base, spec)
        if cached is not None and cached.exists():
            if shop.is_main:
                _copy(cached, place)
        else:
            _finetune(shop, base, spec, total_steps)
            if cached is not None and shop.is_main:
                _copy(place, cached)
        shop.accelerator.wait_for_everyone()
    forget_states(shop, TEACHER)
    teacher = load_teacher(place, shop.study)
    _score(shop, teacher, total_steps)
    return teacher, TeacherReference(path=TEACHER, weights_sha256=weights_sha256(place))


def _score(shop: Workshop, teacher: PreTrainedModel, step: int) -> None:
    """Score the teacher on what it is not scored on yet."""
    scored = {(m.split, m.metric) for m in shop.log.read() if (m.student, m.step) == (TEACHER, step)}
    if not {(split, metric) for split in shop.held_out for metric in shop.task.metrics} <= scored:
        shop.log.forget_after(step - 1, [TEACHER], splits=shop.held_out)
        shop.evaluate(Member(TEACHER, teacher), step, shop.held_out)


def _finetune(shop: Workshop, base: Path, spec: FinetuneSpec, total_steps: int) -> None:
    model = _untuned(shop, base, spec)
    classifier = bool(shop.task.head())
    adapters = add_adapters(model, spec.lora, classifier=classifier, seed=spec.seed) if spec.lora else None
    member = Member(TEACHER, model, adapters=adapters)
    bank = Bank(
        [member],
        None,
        optimizer=spec,
        total_steps=total_steps,
        seed=spec.seed,
        accelerator=shop.accelerator,
        compiled=shop.study.compile,
    )
    run = Run(shop, bank, spec, total_steps, spec.seed, TEACHER, "fine-tuning the teacher")
    run.train()
    if member.stopped is not None and member.stopped.failed:
        raise RunError(
            f"fine-tuning the teacher failed: {member.stopped.reason}. Lower teacher.finetune.learning_rate, or check "
            "the data; start anew with --overwrite."
        )
    if shop.is_main:
        final = adapters.merge_and_unload() if adapters is not None else model
        with replacing(shop.folder / TEACHER) as beside, quiet_transformers():
            final.save_pretrained(beside)
            shop.tokenizer.save_pretrained(beside)


def _untuned(shop: Workshop, base: Path, spec: FinetuneSpec) -> PreTrainedModel:
    auto_model, head = shop.study.task.auto_model(), shop.task.head()
    model: PreTrainedModel
    with seeded(spec.seed, "teacher head"), quiet_transformers():
        if shop.study.teacher.init == "random":
            config = shop.plan.teacher
            config.update(head)
            model = auto_model.from_config(config, dtype=torch.float32)
        else:
            model = auto_model.from_pretrained(
                base, dtype=torch.float32, use_safetensors=True, ignore_mismatched_sizes=True, **head
            )
    return model


def _recipe_hash(shop: Workshop, base: Path, spec: FinetuneSpec) -> str:
    """A name for the teacher that this recipe makes of this base on these data."""
    content = [
        spec.model_dump(mode="json", exclude={"resume_every"}),
        shop.study.precision,
        shop.study.teacher.init,
        weights_sha256(base),
        shop.task.head(),
        [torch.__version__, torch.get_num_threads(), shop.accelerator.device.type, shop.accelerator.num_processes],
    ]
    digest = hashlib.sha256(json.dumps(content).encode())
    for feature in shop.features["train"]:
        digest.update(json.dumps(feature).encode())
    return digest.hexdigest()[:16]


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as beside:
        shutil.copytree(source, beside)

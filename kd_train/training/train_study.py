"""Run a study: fine-tune the teacher, train the bank of every seed, write the students; resume where it stopped."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from kd_train.study.plan import plan_study, teacher_path
from kd_train.study.score_logs import ExamplesLog, MetricsLog
from kd_train.study.study_file import Study
from kd_train.tasks.base import Task
from kd_train.training.run import TrainingContext, forget_states
from kd_train.training.seed_run import train_seed
from kd_train.training.study_directory import check_claim, claim_study, is_done
from kd_train.training.teachers import load_teacher, score_as_it_is, tuned_teacher
from layerangles.errors import InputError
from layerangles.extras import require_extra
from layerangles.files import full_disk_reported
from layerangles.models.checkpoints import load_tokenizer
from layerangles.models.weights import check_weights


def train_study(
    study: Study,
    *,
    resume: bool = False,
    overwrite: bool = False,
    teacher_cache: Path | None = None,
    device: str = "auto",
    seeds: Sequence[int] | None = None,
) -> Path:
    """Train all models of a study, and return its directory.

    Args:
        study: the study.
        resume: continue an interrupted study; the students are those of the uninterrupted run.
        overwrite: replace an existing study.
        teacher_cache: directory of fine-tuned teachers, reused where recipe, base and data are the same.
        device: ``"auto"`` for the best one present, or ``"cpu"``.
        seeds: the seeds whose students are trained, all by default; an empty sequence trains the teacher alone.

    Raises:
        InputError: the study, its models or its data are invalid; raised before any training.
        RunError: the disk is full, or the training of the teacher failed.
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
                train_seed(context, teacher, reference, seed)
            forget_states(context, f"seed{seed}")
        accelerator.end_training()
    return study.folder


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

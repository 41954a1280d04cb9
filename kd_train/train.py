"""Run a study: fine-tune the teacher, train the bank of every seed, write the students; resume where it stopped."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd_train import embedded
from kd_train.bank import Bank, DataOrder, Member, split_by_length
from kd_train.evaluate import Features, answers, score
from kd_train.losses import LossSpec
from kd_train.matching import Strategy
from kd_train.metrics import Measurement, MetricsLog
from kd_train.plan import StudyPlan, plan_study, teacher_path
from kd_train.randomness import seeded
from kd_train.students import build_maps, build_student, stored_maps
from kd_train.study import RESOLVED_FILE, FinetuneSpec, RunSpec, Study, read_study, write_resolved
from kd_train.tasks import classification
from kd_train.tasks.classification import ClassificationData
from layerangles.checkpoints import (
    MATCHING_FILE,
    Matching,
    TeacherReference,
    TowerMatching,
    check_weights,
    load_tokenizer,
    quiet_transformers,
    weights_sha256,
    write_student,
)
from layerangles.errors import InputError
from layerangles.files import replacing
from layerangles.texts import EncodedTexts, Text

TEACHER = "teacher"


@dataclass(frozen=True)
class _Workshop:
    """What all runs of a study share: where it is written, its data in tokens, and the machinery."""

    plan: StudyPlan
    folder: Path
    data: ClassificationData
    features: Mapping[str, Features]
    tokenizer: PreTrainedTokenizerBase
    accelerator: Accelerator
    log: MetricsLog

    @property
    def study(self) -> Study:
        return self.plan.study

    def evaluate(self, member: Member, step: int, splits: tuple[str, ...]) -> list[Measurement]:
        """Score a member on some splits."""
        measured = []
        for split in splits:
            given = answers(member.model, self.features[split], self.tokenizer, self.accelerator)
            values = score(self.data.splits[split].labels, given, self.data.metrics)
            measured += [Measurement(member.name, step, split, metric, value) for metric, value in values.items()]
        self.log.append(measured)
        return measured

    @property
    def finetune(self) -> FinetuneSpec:
        """How the teacher is fine-tuned."""
        if self.study.teacher.finetune is None:
            raise ValueError("this study takes its teacher as it is")
        return self.study.teacher.finetune

    @property
    def held_out(self) -> tuple[str, ...]:
        return tuple(split for split in self.features if split != "train")


def train_study(
    study: Study,
    *,
    resume: bool = False,
    overwrite: bool = False,
    teacher_cache: Path | None = None,
    device: str = "auto",
) -> Path:
    """Train everything that a study asks for, and return its directory.

    Args:
        study: what to do.
        resume: go on with a study that was interrupted; the students are those of the uninterrupted run.
        overwrite: replace a study that is there.
        teacher_cache: keep fine-tuned teachers here, and take them from here where data and recipe are the same.
        device: ``"auto"`` for the best present, or ``"cpu"``.

    Raises:
        InputError: anything wrong with the study, its models or its data; before any training.
    """
    plan = plan_study(study)
    folder = study.folder
    _claim(folder, study, resume=resume, overwrite=overwrite)
    data = classification.load(study.task)
    base = teacher_path(study.teacher)
    check_weights(base)
    as_it_is = None
    if study.teacher.finetune is None:
        data = data.with_label_names(_label_names(plan.teacher))
        as_it_is = _load_classifier(base)
    tokenizer = load_tokenizer(base)
    features = {name: _encode(split.texts, tokenizer, plan) for name, split in data.splits.items()}
    shop = _Workshop(plan, folder, data, features, tokenizer, _accelerator(study, device), MetricsLog(folder))
    if overwrite and folder.exists():
        _refuse_to_delete(folder, [base, *map(Path, (study.task.files or {}).values())])
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_resolved(study, folder)

    if as_it_is is not None:
        teacher, reference = as_it_is, _score_as_it_is(shop, base, as_it_is)
    else:
        teacher, reference = _tuned_teacher(shop, base, teacher_cache)
    for seed in study.seeds:
        _train_seed(shop, teacher, reference, seed)
    shutil.rmtree(folder / "resume", ignore_errors=True)
    return folder


def _claim(folder: Path, study: Study, *, resume: bool, overwrite: bool) -> None:
    """Check, before any work, that the study may be written to its folder."""
    resolved = folder / RESOLVED_FILE
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not resolved.exists():
        raise InputError(f"{folder} exists and holds no study, so it is left alone. Choose another output.")
    if not (resume or overwrite):
        raise InputError(
            f"{folder} holds a study already. Continue it with --resume, replace it with --overwrite, "
            "or choose another output."
        )
    if overwrite:
        return
    before = read_study(folder).model_dump(mode="json")
    now = study.model_dump(mode="json")
    changed = [key for key in now if key != "output" and before[key] != now[key]]
    if changed:
        raise InputError(
            f"{folder} was begun with another {' and another '.join(changed)}, so it cannot be resumed with this study "
            "file. Take the settings back, or start anew with --overwrite or another output."
        )


def _refuse_to_delete(folder: Path, inputs: Sequence[Path]) -> None:
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
    # A process has one precision and one device; an earlier study's must not bind this one.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="bf16" if study.precision == "bfloat16" else "no")
    if accelerator.num_processes > 1:
        raise InputError(
            f"a study is trained by one process in this version; got {accelerator.num_processes}. "
            "Start it without accelerate launch."
        )
    return accelerator


def _encode(texts: list[Text], tokenizer: PreTrainedTokenizerBase, plan: StudyPlan) -> Features:
    encoded = EncodedTexts.from_texts(texts, tokenizer, max_length=plan.study.task.max_length)
    encoded.check_fits([plan.teacher])
    return [{k: v for k, v in feature.items() if k != "special_tokens_mask"} for feature in encoded.features]


def _label_names(config: PretrainedConfig) -> tuple[str, ...]:
    names: Mapping[Any, str] = config.id2label or {}
    return tuple(names[number] for number in sorted(names))


def _score_as_it_is(shop: _Workshop, base: Path, teacher: PreTrainedModel) -> TeacherReference:
    study = shop.study
    shop.log.forget_after(-1, [TEACHER])
    shop.evaluate(Member(TEACHER, teacher), 0, shop.held_out)
    is_local = embedded.is_embedded(study.teacher.model) or Path(study.teacher.model).is_dir()
    path = str(base.resolve()) if is_local else study.teacher.model
    return TeacherReference(path=path, revision=study.teacher.revision, weights_sha256=weights_sha256(base))


def _tuned_teacher(shop: _Workshop, base: Path, cache: Path | None) -> tuple[PreTrainedModel, TeacherReference]:
    """The teacher, fine-tuned into the study's directory unless it is there or in the cache, and scored."""
    spec = shop.finetune
    place = shop.folder / TEACHER
    total_steps = spec.total_steps(len(shop.features["train"]))
    if not place.exists():
        cached = None if cache is None else cache / _recipe_hash(shop, base)
        if cached is not None and cached.exists():
            _copy(cached, place)
        else:
            _finetune(shop, base, place, total_steps)
            if cached is not None:
                _copy(place, cached)
    teacher = _load_classifier(place)
    scored = {(m.split, m.metric) for m in shop.log.read() if (m.student, m.step) == (TEACHER, total_steps)}
    if not {(split, metric) for split in shop.held_out for metric in shop.data.metrics} <= scored:
        shop.log.forget_after(total_steps - 1, [TEACHER], splits=shop.held_out)
        shop.evaluate(Member(TEACHER, teacher), total_steps, shop.held_out)
    return teacher, TeacherReference(path=TEACHER, weights_sha256=weights_sha256(place))


def _finetune(shop: _Workshop, base: Path, place: Path, total_steps: int) -> None:
    spec = shop.finetune
    names = shop.data.label_names
    with seeded(spec.seed, "teacher head"), quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(
            base,
            dtype=torch.float32,
            use_safetensors=True,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
            problem_type="single_label_classification",
            ignore_mismatched_sizes=True,
        )
    member = Member(TEACHER, model)
    bank = Bank(
        [member],
        None,
        loss=LossSpec(),
        optimizer=spec,
        total_steps=total_steps,
        seed=spec.seed,
        accelerator=shop.accelerator,
    )
    _run(shop, bank, spec, total_steps, seed=spec.seed, name=TEACHER, title="fine-tuning the teacher")
    with replacing(place) as beside, quiet_transformers():
        model.save_pretrained(beside)
        shop.tokenizer.save_pretrained(beside)
    shutil.rmtree(shop.folder / "resume" / TEACHER, ignore_errors=True)


def _recipe_hash(shop: _Workshop, base: Path) -> str:
    """A name for the teacher that this recipe makes of this base on these data."""
    content = [
        shop.finetune.model_dump(mode="json", exclude={"evaluate_every", "resume_every"}),
        shop.study.precision,
        weights_sha256(base),
        shop.data.label_names,
        [torch.__version__, torch.get_num_threads(), shop.accelerator.device.type],
    ]
    digest = hashlib.sha256(json.dumps(content).encode())
    for example in zip(shop.features["train"], shop.data.splits["train"].labels, strict=True):
        digest.update(json.dumps(example).encode())
    return digest.hexdigest()[:16]


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as beside:
        shutil.copytree(source, beside)


def _load_classifier(path: Path) -> PreTrainedModel:
    """A classifier with all its weights.

    Raises:
        InputError: some are not in its file; transformers would draw them at random.
    """
    model: PreTrainedModel
    with quiet_transformers():
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    if info["missing_keys"]:
        raise InputError(
            f"{path} is no classifier: its weights lack {sorted(info['missing_keys'])[0]}. Have it fine-tuned on the "
            "task first (teacher.finetune), or name a model that was."
        )
    return model


def _train_seed(shop: _Workshop, teacher: PreTrainedModel, reference: TeacherReference, seed: int) -> None:
    """Train the bank of one seed, unless its students are all there."""
    plan, study, spec = shop.plan, shop.study, shop.study.training
    names = plan.student_names(seed)
    students = shop.folder / "students"
    if all((students / name / MATCHING_FILE).exists() for name in names):
        return
    members = []
    for name, strategy in names.items():
        pairs = plan.pairs[strategy.label]
        model = build_student(teacher, plan.student, seed=seed)
        maps = build_maps(plan.student, plan.teacher.hidden_size, pairs, tower=plan.tower, seed=seed)
        members.append(Member(name, model, pairs, maps))
    total_steps = spec.total_steps(len(shop.features["train"]))
    bank = Bank(
        members,
        teacher,
        loss=study.loss,
        optimizer=spec,
        total_steps=total_steps,
        seed=seed,
        accelerator=shop.accelerator,
    )

    def write(member: Member, place: Path, step: int) -> None:
        best = shop.log.best(member.name, shop.data.metrics[0]) if step == total_steps else None
        matching = _matching(shop, names[member.name], place, reference, seed, step, best)
        write_student(
            place, member.model, shop.tokenizer, matching, stored_maps(member.maps, tower=plan.tower), overwrite=True
        )

    keep = set(spec.checkpoint_steps(total_steps))

    def keep_checkpoints(step: int) -> None:
        if step in keep:
            for member in members:
                write(member, students / member.name / "checkpoints" / f"step-{step}", step)

    title = f"training {len(members)} students, seed {seed}"
    run_name = f"seed{seed}"
    _run(shop, bank, spec, total_steps, seed=seed, name=run_name, title=title, after_step=keep_checkpoints)
    for member in members:
        shop.evaluate(member, total_steps, tuple(split for split in shop.held_out if split != "dev"))
        write(member, students / member.name, total_steps)
    shutil.rmtree(shop.folder / "resume" / run_name, ignore_errors=True)


def _matching(
    shop: _Workshop,
    strategy: Strategy,
    place: Path,
    reference: TeacherReference,
    seed: int,
    step: int,
    best: Measurement | None,
) -> Matching:
    plan, study = shop.plan, shop.study
    if reference.path == TEACHER:  # relative, so that the study can be moved
        reference = reference.model_copy(update={"path": os.path.relpath(shop.folder / TEACHER, place)})
    is_drawn = strategy.kind in ("random", "in_order_random")
    return Matching(
        teacher=reference,
        strategy=strategy.model_dump(mode="json", exclude_none=True),
        seed=seed,
        mapping_seed=(strategy.mapping_seed or 0) if is_drawn else None,
        step=step,
        best=None if best is None else {"step": best.step, "metric": best.metric, "value": best.value},
        towers={plan.tower: TowerMatching(pairs=plan.pairs[strategy.label], map=plan.student.map)},
        init={
            "kind": study.student.init,
            "copied_layers": list(plan.student.copied_layers),
            "embeddings": plan.student.embeddings,
        },
        loss=study.loss.model_dump(mode="json"),
    )


def _run(
    shop: _Workshop,
    bank: Bank,
    spec: RunSpec,
    total_steps: int,
    *,
    seed: int,
    name: str,
    title: str,
    after_step: Callable[[int], None] = lambda _step: None,
) -> None:
    """Train a bank from where it stopped to its last step, scoring it on the dev split along the way."""
    states = shop.folder / "resume" / name
    start = _newest_state(states)
    if start:
        bank.load(states / f"step-{start}")
    else:
        after_step(0)
    shop.log.forget_after(start, [member.name for member in bank.members])
    features, labels = shop.features["train"], shop.data.splits["train"].labels
    order = DataOrder(len(features), spec.batch_size, seed)
    evaluate_every = spec.evaluate_every or max(1, total_steps // 10)
    with tqdm(total=total_steps, initial=start, desc=title, unit="step", disable=None) as bar:
        for step in range(start, total_steps):
            rows = order.batch(step)
            parts = split_by_length([features[i] for i in rows], [labels[i] for i in rows], shop.tokenizer, spec.parts)
            losses = bank.train_step(parts, step)
            done = step + 1
            bar.update()
            after_step(done)
            if done % evaluate_every == 0 or done == total_steps:
                shop.log.append(
                    Measurement(member, done, "train", f"loss_{term}", value)
                    for member, terms in losses.items()
                    for term, value in terms.items()
                )
                values = [shop.evaluate(member, done, ("dev",))[0] for member in bank.members]
                mean = sum(m.value for m in values) / len(values)
                bar.set_postfix_str(f"dev {values[0].metric} {mean:.3f}")
            if done % spec.resume_every == 0 and done < total_steps:
                _save_state(bank, states, done)


def _newest_state(states: Path) -> int:
    """The last step whose state is there whole; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in states.glob("step-*")), default=0)


def _save_state(bank: Bank, states: Path, step: int) -> None:
    with replacing(states / f"step-{step}", overwrite=True) as beside:
        bank.save(beside)
    for older in states.glob("step-*"):
        if older.name != f"step-{step}":
            shutil.rmtree(older)

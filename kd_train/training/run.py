"""A training run of a teacher or of a bank of students, scored along the way and resumed where it was interrupted."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from kd_train.batches.order import DataOrder, cut_by_length
from kd_train.study.plan import StudyPlan
from kd_train.study.score_logs import ExampleScores, ExamplesLog, Measurement, MetricsLog
from kd_train.study.specs import RunSpec
from kd_train.study.study_file import Study
from kd_train.tasks.base import Feature, Task
from kd_train.tasks.scoring.metrics import Predictions
from kd_train.training.bank import Bank
from kd_train.training.member import Member, Stop, load_member, save_member
from layerangles.files import atomic_write
from layerangles.notation import number


@dataclass(frozen=True)
class TrainingContext:
    """Everything that the runs of a study share: its plan, directory, encoded data, logs and accelerator."""

    plan: StudyPlan
    folder: Path
    task: Task
    features: Mapping[str, Sequence[Feature]]
    tokenizer: PreTrainedTokenizerBase
    accelerator: Accelerator
    log: MetricsLog
    examples: ExamplesLog

    @property
    def study(self) -> Study:
        """The study as it was read."""
        return self.plan.study

    @property
    def held_out(self) -> tuple[str, ...]:
        """All splits but the training data."""
        return tuple(split for split in self.features if split != "train")

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def final_splits(self) -> tuple[str, ...]:
        """The splits on which finished students are compared: the held-out ones except dev, or dev alone."""
        return tuple(split for split in self.held_out if split != "dev") or ("dev",)

    def evaluate(self, member: Member, step: int, splits: Sequence[str]) -> None:
        """Score a member on some splits."""
        for split in splits:
            values = self.task.values(self._predictions(member, split))
            self.report(Measurement(member.name, step, split, metric, value) for metric, value in values.items())

    def evaluate_finally(self, member: Member, step: int) -> None:
        """Score a finished member on the final splits, by example as well."""
        for split in self.final_splits:
            predictions = self._predictions(member, split)
            self.examples.append(
                ExampleScores(member.name, step, split, name, tuple(by_example(*predictions[name])))
                for name in self.task.metrics
                if (by_example := self.task.all_metrics[name].by_example) is not None
            )
            if split != "dev":  # dev was scored along the way
                values = self.task.values(predictions)
                self.report(Measurement(member.name, step, split, metric, value) for metric, value in values.items())

    def _predictions(self, member: Member, split: str) -> Mapping[str, Predictions]:
        return self.task.predict(member.model, split, self.features[split], self.tokenizer, self.accelerator)

    def report(self, measurements: Iterable[Measurement]) -> None:
        """Write measurements to the study's log and to its trackers."""
        new = list(measurements)
        self.log.append(new)
        for m in new:
            self.accelerator.log({f"{m.student}/{m.split}/{m.metric}": m.value}, step=m.step)

    def best(self, student: str) -> Measurement | None:
        """A student's best value so far of the first metric on the dev split."""
        metric = self.task.metrics[0]
        better = self.study.task.all_metrics[metric].higher_is_better
        return self.log.best(student, metric, higher_is_better=better)


@dataclass
class Run:
    """The training of a bank from start to end.

    Attributes:
        name: the name of its states to resume from.
        title: the text of its progress bar.
        after_step: called with the number of finished steps, with 0 before the first.
    """

    context: TrainingContext
    bank: Bank
    spec: RunSpec
    total_steps: int
    seed: int
    name: str
    title: str
    after_step: Callable[[int], None] = lambda _step: None

    @property
    def _states(self) -> Path:
        return self.context.folder / "resume" / self.name

    def train(self) -> dict[str, int]:
        """Train the bank from its newest state to its last step, and return the step of each member's final state."""
        context, bank, spec = self.context, self.bank, self.spec
        start = _newest_state(self._states)
        if start:
            bank.load(self._states / f"step-{start}")
        else:
            self.after_step(0)
        context.log.forget_after(start, [member.name for member in bank.members])
        features = context.features["train"]
        order = DataOrder(len(features), spec.batch_size, self.seed)
        evaluate_every = spec.evaluate_every or max(1, self.total_steps // 10)
        bar = tqdm(
            total=self.total_steps,
            initial=start,
            desc=self.title,
            unit="step",
            disable=None if context.is_main else True,
        )
        with bar:
            for step in range(start, self.total_steps):
                if not bank.active:
                    break
                rows = [features[i] for i in order.batch(step)]
                most = spec.min_micro_batches if bank.packs else spec.micro_batches
                micro_batches = cut_by_length(
                    rows, context.task, context.tokenizer, most, min_micro_batches=spec.min_micro_batches
                )
                losses = bank.train_step(micro_batches, step)
                done = step + 1
                bar.update()
                self.after_step(done)
                if done % evaluate_every == 0 or done == self.total_steps:
                    self._report_losses(losses, done)
                    bar.set_postfix_str(self._evaluate(done))
                if done % spec.resume_every == 0 and done < self.total_steps:
                    self._save_state(done)
        return self._final_steps()

    def _report_losses(self, losses: Mapping[str, Mapping[str, float]], done: int) -> None:
        self.context.report(
            Measurement(member, done, "train", f"loss_{term}", value)
            for member, terms in losses.items()
            for term, value in terms.items()
        )

    def _evaluate(self, done: int) -> str:
        """Score the active members, save those at their best, and stop those that have not improved."""
        context, metric = self.context, self.context.task.metrics[0]
        values = []
        for member in self.bank.active:
            context.evaluate(member, done, ("dev",))
            best, along = context.best(member.name), context.log.dev(member.name, metric)
            values.append(along[-1].value if along and along[-1].step == done else float("nan"))
            if best is None:
                continue
            if best.step == done and self.spec.keep == "best" and context.is_main:
                with atomic_write(self._states / "best" / member.name, overwrite=True) as beside:
                    beside.mkdir()
                    save_member(member, beside)
            since = sum(m.step > best.step for m in along)
            if self.spec.patience is not None and since >= self.spec.patience:
                reason = f"no better {metric} on the dev split in {since} evaluations"
                member.stopped = Stop(done, reason, failed=False)
        context.accelerator.wait_for_everyone()
        return f"dev {metric} {number(sum(values) / max(1, len(values)), 3)}"

    def _final_steps(self) -> dict[str, int]:
        """Load the state that is kept of every member, and return the steps of these states."""
        steps = {}
        for member in self.bank.members:
            steps[member.name] = self.total_steps if member.stopped is None else member.stopped.step
            best = self.context.best(member.name)
            kept = self._states / "best" / member.name
            if self.spec.keep == "best" and best is not None and kept.exists():
                load_member(member, kept)
                steps[member.name] = best.step
        return steps

    def _save_state(self, done: int) -> None:
        if self.context.is_main:
            with atomic_write(self._states / f"step-{done}", overwrite=True) as beside:
                self.bank.save(beside)
            for older in self._states.glob("step-*"):
                if older.name != f"step-{done}":
                    shutil.rmtree(older)
        self.context.accelerator.wait_for_everyone()


def forget_states(context: TrainingContext, name: str) -> None:
    """Remove a run's states to resume from, once its results are written."""
    context.accelerator.wait_for_everyone()
    if context.is_main:
        shutil.rmtree(context.folder / "resume" / name, ignore_errors=True)
        with suppress(OSError):  # it holds another run's states, or does not exist
            (context.folder / "resume").rmdir()


def _newest_state(states: Path) -> int:
    """The last step with a complete state; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in states.glob("step-*")), default=0)

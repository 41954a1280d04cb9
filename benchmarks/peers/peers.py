"""The peers: distillation by TextBrewer, by a subclass of transformers' Trainer, and by a loop written by hand.

Runs in the peers' own environment (README.md beside this file), one variant a process; benchmarks/peers.py starts the
processes and tells them when to run. All three train the same student, on the same batches, padded beforehand, with
the same loss, CE + KL + 3 · masked MSE of the hidden states, and the same fused AdamW.

- ``textbrewer``: its GeneralDistiller as it is. Its loss of the predictions is the cross entropy with the teacher's
  probabilities, which is KL plus the teacher's entropy: another value, the same gradient. The entropy is subtracted
  from the losses that are recorded, not from those that are trained on.
- ``trainer``: a Trainer whose compute_loss is the distillation; it logs, saves and evaluates nothing.
- ``loop``: the same loss in a plain loop.

Run by hand: PYTHONPATH=benchmarks PEER_PYTHON benchmarks/peers/peers.py loop --workload FOLDER, then type "run 3".
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from peers_workload import (
    HIDDEN_WEIGHT,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Gate,
    Pairs,
    Workload,
    worker,
)
from torch.nn import functional
from transformers import BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

ENDLESS = 10**9
Batch = dict[str, torch.Tensor]


def fused_adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    """Fused AdamW without decay of biases and norms, as Trainer and the project have it."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)


def distillation_loss(
    teacher: BertForSequenceClassification, student: torch.nn.Module, batch: Batch, pairs: Pairs
) -> torch.Tensor:
    """CE + KL + 3 · MSE over the real tokens, as one would write it."""
    output = student(**batch, output_hidden_states=bool(pairs))
    with torch.no_grad():
        unlabelled = {name: value for name, value in batch.items() if name != "labels"}
        target = teacher(**unlabelled, output_hidden_states=bool(pairs))
    loss: torch.Tensor = output.loss + functional.kl_div(
        output.logits.log_softmax(-1), target.logits.log_softmax(-1), reduction="batchmean", log_target=True
    )
    if pairs:
        mask = batch["attention_mask"].unsqueeze(-1)
        squares = [((output.hidden_states[s] - target.hidden_states[t]) * mask).square().sum() for s, t in pairs]
        loss = loss + HIDDEN_WEIGHT * torch.stack(squares).mean() / (mask.sum() * teacher.config.hidden_size)
    return loss


def loop(workload: Workload, chosen: Namespace, gate: Gate) -> None:
    """The loop written by hand."""
    optimizer = fused_adamw(workload.student)
    for batch in gate.cycle(workload.padded()):
        loss = distillation_loss(workload.teacher, workload.student, batch, workload.pairs[chosen.strategy])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(workload.student.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        gate.record(loss.item())


def trainer(workload: Workload, chosen: Namespace, gate: Gate) -> None:
    """Trainer with a loss of its own."""

    class Distiller(Trainer):
        def compute_loss(
            self, model: torch.nn.Module, inputs: Batch, *_args: object, **_options: object
        ) -> torch.Tensor:
            loss = distillation_loss(workload.teacher, model, inputs, workload.pairs[chosen.strategy])
            gate.record(loss.item())
            return loss

    class AtGate(TrainerCallback):
        # The data loader reads one batch ahead, so the steps are counted where they end.
        def on_train_begin(self, *_args: object, **_options: object) -> None:
            gate.wait()

        def on_step_end(self, *_args: object, **_options: object) -> None:
            gate.step_done()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=ENDLESS,
            # An "example" of this data set is a batch, padded already.
            per_device_train_batch_size=1,
            train_sampling_strategy="sequential",
            optim="adamw_torch_fused",
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            lr_scheduler_type="constant",
            max_grad_norm=MAX_GRAD_NORM,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        Distiller(
            workload.student,
            arguments,
            data_collator=lambda batches: batches[0],
            train_dataset=workload.padded(),
            callbacks=[AtGate()],
        ).train()


def textbrewer(workload: Workload, chosen: Namespace, gate: Gate) -> None:
    """TextBrewer's GeneralDistiller."""
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    pairs = workload.pairs[chosen.strategy]
    entropy = 0.0

    def of_teacher(_batch: Batch, output: SequenceClassifierOutput) -> dict[str, Any]:
        nonlocal entropy
        entropy = torch.distributions.Categorical(logits=output.logits).entropy().mean().item()
        return {"logits": output.logits, "hidden": output.hidden_states}

    def of_student(batch: Batch, output: SequenceClassifierOutput) -> dict[str, Any]:
        return {
            "logits": output.logits,
            "hidden": output.hidden_states,
            "losses": output.loss,
            "inputs_mask": batch["attention_mask"],
        }

    class Losses:
        """In place of a TensorBoard writer."""

        def add_scalar(self, name: str, value: float, _step: int) -> None:
            if name == "scalar/total_loss":
                gate.record(value - entropy)

    matches = [
        {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": HIDDEN_WEIGHT / len(pairs)}
        for s, t in pairs
    ]
    with tempfile.TemporaryDirectory() as folder:
        distiller = GeneralDistiller(
            # Without ckpt_steps, num_steps ends in int(None).
            TrainingConfig(output_dir=folder, device="cpu", ckpt_steps=ENDLESS),
            DistillationConfig(
                temperature=1, hard_label_weight=1, kd_loss_type="ce", kd_loss_weight=1, intermediate_matches=matches
            ),
            workload.teacher,
            workload.student,
            of_teacher,
            of_student,
        )
        distiller.tb_writer = Losses()
        with distiller:
            distiller.train(
                fused_adamw(workload.student),
                gate.cycle(workload.padded()),
                num_steps=ENDLESS,
                max_grad_norm=MAX_GRAD_NORM,
                output_hidden_states=bool(pairs),
            )


VARIANTS: dict[str, Callable[[Workload, Namespace, Gate], None]] = {
    "textbrewer": textbrewer,
    "trainer": trainer,
    "loop": loop,
}

if __name__ == "__main__":
    worker(__doc__ or "", VARIANTS)

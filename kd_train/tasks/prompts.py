"""Prompts and answers as tokens: their boundary, and truncation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Int

from kd_train.tasks.base import IGNORED, Feature
from layerangles.errors import InputError
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch, transformers = map(lazy_module, ("torch", "transformers"))

# A tokenizer's output is many times larger than the token ids that are kept of it.
_TEXTS_AT_A_TIME = 256


class Prompted(NamedTuple):
    """A tokenized text of which the first tokens are given and the others predicted.

    Attributes:
        tokens: token ids of the whole text, with special tokens.
        n_given: number of given tokens, at least one.
    """

    tokens: list[int]
    n_given: int

    def feature(self, *, predict_all: bool = False) -> Feature:
        """``input_ids``, and ``labels`` with the next token in each place, ``IGNORED`` where that token is given."""
        n_ignored = 0 if predict_all else self.n_given - 1
        return {"input_ids": self.tokens[:-1], "labels": [IGNORED] * n_ignored + self.tokens[1 + n_ignored :]}


def joined(prompt: str, answer: str, separator: str) -> tuple[str, str]:
    """Prompt and answer, with the whitespace between them at the beginning of the answer.

    Subword tokenizers join a word with the space before it. A prompt that ended in that space would be followed by a
    token that hardly ever follows it in running text.

    Args:
        prompt: whitespace at its end is moved to the answer.
        answer: may begin with whitespace of its own.
        separator: text between them if neither has whitespace there.
    """
    bare = prompt.rstrip()
    space = prompt[len(bare) :]
    if not space and not answer[:1].isspace():
        space = separator
    return bare, space + answer


def plain(texts: Sequence[str], tokenizer: transformers.PreTrainedTokenizerBase, max_length: int) -> list[Prompted]:
    """Texts in which every token but the first is predicted; the first as well if the tokenizer puts BOS before it.

    Raises:
        InputError: a text without any token to predict.
    """
    begin = beginning(tokenizer)
    encoded = [Prompted((begin + ids)[:max_length], 1) for ids in token_ids(texts, tokenizer)]
    for number, (text, (tokens, _)) in enumerate(zip(texts, encoded, strict=True), start=1):
        if len(tokens) < 2:
            raise InputError(
                f"example {number}: {text!r} is {len(tokens)} token long, so that there is none to predict from "
                "another. Leave it out, or join it to another text."
            )
    return encoded


def prompted(
    pairs: Sequence[tuple[str, str]], tokenizer: transformers.PreTrainedTokenizerBase, max_length: int, *, end: bool
) -> list[Prompted]:
    """Prompts with their answers, tokenized separately, so that no token belongs to both.

    Where both together are too long, the prompt loses its beginning except BOS and one token; an answer that is still
    too long then loses its end.

    Args:
        pairs: prompt and answer, from :func:`joined`.
        tokenizer: its BOS is put first, if it puts one there itself.
        max_length: longest prompt with answer, in tokens, with special tokens.
        end: whether EOS belongs to the answer.

    Raises:
        InputError: the tokenizer has no EOS, or a text without any token.
    """
    begin, last = beginning(tokenizer), [_end(tokenizer)] if end else []
    prompts = token_ids([prompt for prompt, _ in pairs], tokenizer)
    answers = token_ids([answer for _, answer in pairs], tokenizer)
    encoded = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True), start=1):
        if not prompt or not answer:
            raise InputError(
                f"example {number}: of the {'answer' if prompt else 'prompt'} {pairs[number - 1][bool(prompt)]!r} this "
                "tokenizer makes no token. Leave it out."
            )
        given = begin + left_cut(prompt, max_length - len(begin) - len(answer + last))
        encoded.append(Prompted((given + answer + last)[:max_length], len(given)))
    return encoded


def left_cut(tokens: list[int], room: int) -> list[int]:
    """The last ``room`` tokens, at least one."""
    return tokens[-max(room, 1) :]


def token_ids(texts: Sequence[str], tokenizer: transformers.PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of texts, without special tokens or truncation."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        some = list(texts[start : start + _TEXTS_AT_A_TIME])
        ids += tokenizer(some, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids


def beginning(tokenizer: transformers.PreTrainedTokenizerBase) -> list[int]:
    """BOS, if the tokenizer puts it before texts; else nothing."""
    begin = tokenizer("")["input_ids"][:1]
    return list(begin) if tokenizer.bos_token_id is not None and begin == [tokenizer.bos_token_id] else []


def left_padded(rows: Sequence[list[int]], fill: int) -> dict[str, Int[torch.Tensor, "example position"]]:
    """Prompts padded on the left, so that the tokens generated next are in one column."""
    length = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[fill] * (length - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
    }


def _end(tokenizer: transformers.PreTrainedTokenizerBase) -> int:
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise InputError(
            "this tokenizer has no end token, so that a model could not learn where an answer stops. Set eos_token in "
            "its tokenizer_config.json."
        )
    return end

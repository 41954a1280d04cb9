"""Prompts and answers as tokens: whitespace, special tokens, and truncation."""

import pytest
from toys.models import toy_tokenizer
from toys.tasks import BEGIN, END, byte_tokenizer

from kd_train.tasks.prompts import joined, plain, prompted
from layerangles import InputError


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("A:", "yes", ("A:", " yes")),
        ("A: ", "yes", ("A:", " yes")),
        ("A:", " yes", ("A:", " yes")),
        ("A:\n", "yes", ("A:", "\nyes")),
        ("A: ", " yes", ("A:", "  yes")),
    ],
)
def test_whitespace_between_prompt_and_answer_belongs_to_the_answer(
    prompt: str, answer: str, expected: tuple[str, str]
) -> None:
    assert joined(prompt, answer, " ") == expected
    assert joined("A:", "yes", "") == ("A:", "yes")


def test_no_token_belongs_to_prompt_and_answer() -> None:
    tokenizer = byte_tokenizer()
    (tokens, n_given), *_ = prompted([("x:", " a")], tokenizer, 50, end=True)
    assert tokenizer.convert_ids_to_tokens(tokens) == ["x", ":", "Ġa", "<end>"]
    assert n_given == 2
    # Written together, "x" and "y" could be one token, and "Ġ" and "a" are.
    (tokens, n_given), *_ = prompted([("x ", "a")], tokenizer, 50, end=False)
    assert tokenizer.convert_ids_to_tokens(tokens) == ["x", "Ġ", "a"]
    assert n_given == 2


@pytest.mark.parametrize("begins", [True, False])
def test_bos_comes_first_if_the_tokenizer_puts_it_there(begins: bool) -> None:
    tokenizer, begin = byte_tokenizer(begins=begins), [BEGIN] if begins else []
    (tokens, n_given), *_ = prompted([("xy", " a")], tokenizer, 50, end=True)
    assert tokens[: len(begin)] == begin
    assert (len(tokens), n_given) == (4 + len(begin), 2 + len(begin))
    ((tokens, n_given),) = plain(["xy"], tokenizer, 50)
    assert tokens == tokenizer("xy")["input_ids"]
    assert n_given == 1
    assert (len(tokens), tokens[: len(begin)]) == (2 + len(begin), begin)


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("max_length", [5, 6, 7, 8, 50])
def test_a_prompt_that_is_too_long_loses_its_beginning(begins: bool, max_length: int) -> None:
    tokenizer = byte_tokenizer(begins=begins)
    (tokens, n_given), *_ = prompted([("12345", " abc")], tokenizer, max_length, end=True)
    begin = [BEGIN] if begins else []
    room = max(min(5, max_length - len(begin) - 4), 1)
    whole = begin + tokenizer("12345"[-room:], add_special_tokens=False)["input_ids"]
    whole += tokenizer(" abc", add_special_tokens=False)["input_ids"] + [END]
    assert tokens == whole[:max_length]
    assert n_given == len(begin) + room
    assert (tokens[-1] == END) == (max_length > 5 or not begins)  # an answer that is too long loses its end


def test_texts_without_a_token_to_predict_are_refused() -> None:
    with pytest.raises(InputError, match=r"example 2: 'x' is 1 token long, so that there is none to predict"):
        plain(["xy", "x"], byte_tokenizer(), 50)
    assert len(plain(["x"], byte_tokenizer(begins=True), 50)[0].tokens) == 2
    assert [len(tokens) for tokens, _ in plain(["x" * 9, "xy"], byte_tokenizer(), 6)] == [6, 2]
    bare = toy_tokenizer()
    with pytest.raises(InputError, match=r"this tokenizer has no end token, .* Set eos_token"):
        prompted([("a", "b")], bare, 50, end=True)
    with pytest.raises(InputError, match=r"example 1: of the answer ' ' this tokenizer makes no token"):
        prompted([("a", " ")], bare, 50, end=False)
    with pytest.raises(InputError, match=r"example 1: of the prompt ' ' this tokenizer makes no token"):
        prompted([(" ", "a")], bare, 50, end=False)


def test_long_texts_cause_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 10
    assert len(prompted([("x" * 99, "y")], tokenizer, 8, end=True)[0].tokens) == 8
    assert not caplog.records

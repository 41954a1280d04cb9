"""Choices of student, tower, step and layer: wrong ones are refused, and names are drawn as they stand."""

import re

import pytest
from toys.results import NAME, make_result, maps_of, texts_of, with_steps

from layerangles.errors import InputError
from layerangles.figures import comparison, heatmap, histogram


def test_drawing_leaves_the_result_as_it_was():
    result = make_result(("a", "b"))
    before = result.dataset.copy(deep=True)
    heatmap(result, "a")
    comparison(result)
    histogram(result, "a")
    assert result.dataset.identical(before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (heatmap, "this result has 2 students; name one with student=…: 'a', 'b'."),
        (lambda r: heatmap(r, "c"), "the student 'c' is not in this result; allowed are 'a', 'b'."),
        (lambda r: heatmap(r, "a", tower="x"), "the tower 'x' is not in this result; allowed are 'encoder'."),
        (lambda r: heatmap(r, "a", step=3), "step 3 was not measured; the steps are [0, 300]."),
        (lambda r: heatmap(r.at_step(0), "a", step=3), "step is 3, but this result has no step axis."),
        (lambda r: comparison(r, []), "there is nothing to compare: got no students; allowed are 'a', 'b'."),
        (lambda r: comparison(r, ["a", "a"]), "the student 'a' is given twice. Give every student once."),
        (lambda r: comparison(r, "a"), "students is the text 'a'; give a list of names, such as ['a']."),
        (lambda r: comparison(r, ["a", "c"]), "the student 'c' is not in this result; allowed are 'a', 'b'."),
        (lambda r: histogram(r, "a", student_layer=9), "student_layer is 9; allowed are 0, 1, 2 (0 is the embedding"),
        (lambda r: histogram(r, "a", layer_a=4), "layer_a is 4; allowed are 0, 1, 2, 3 (0 is the embedding output)."),
        (lambda r: histogram(r, "a", layer_b=-1), "layer_b is -1; allowed are 0, 1, 2, 3"),
        (lambda r: histogram(r, "a", layer_b=1), "layer_a and layer_b are both 1, and a layer makes no angle with"),
    ],
)
def test_what_the_user_gets_wrong_is_named_with_what_is_allowed(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(with_steps(make_result(("a", "b")), [0, 300]))


def test_two_towers_need_a_choice_and_are_named():
    result = make_result(towers=("encoder", "decoder"))
    with pytest.raises(InputError, match=re.escape("this result has 2 towers; name one with tower=…: 'encoder', 'dec")):
        heatmap(result)
    assert any("· decoder" in text for text in texts_of(heatmap(result, tower="decoder")))


def test_names_are_drawn_as_they_stand():
    result = make_result((NAME, "b"))
    for figure in (heatmap(result, NAME), comparison(result), histogram(result, NAME)):
        text = figure.to_json()
        assert "\\u003cscript" not in text
        assert "<script" not in text
        assert "&lt;script" in text or "\\u0026lt;script" in text
    assert "%{z}" not in maps_of(heatmap(result, NAME))[0].hovertemplate

"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerangles import notation

finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(finite, st.integers(0, 6))
def test_a_number_is_read_back_to_its_decimals(value: float, places: int) -> None:
    text = notation.number(value, places)
    rounding = 0.5 * 10.0**-places + 2 * math.ulp(value)  # of the decimals, and of the two floats that are compared
    assert float(text.replace("−", "-").replace(",", "")) == pytest.approx(value, abs=rounding)
    assert "-" not in text
    assert not text.startswith("−0") or any(digit in text for digit in "123456789")


@given(finite, st.integers(0, 4))
def test_a_signed_number_has_a_sign_unless_it_is_zero(value: float, places: int) -> None:
    text = notation.number(value, places, signed=True)
    assert text[0] in "+−" or not text.strip("0.")


@pytest.mark.parametrize("write", [notation.number, notation.degrees, notation.percent])
def test_nan_is_a_dash(write: "type[str]") -> None:
    assert write(math.nan) == "–"


def test_an_interval_without_an_end_is_left_out() -> None:
    assert notation.with_interval(1.5, math.nan, 2.0, 1) == "1.5"
    assert notation.with_interval(math.nan, math.nan, math.nan) == "–"
    assert notation.with_interval(0.5, -math.inf, math.inf) == "0.5 [−∞, ∞]"

"""States of valid tokens come in reading order, and are finite."""

import pytest
import torch

from layerangles.errors import InputError
from layerangles.models.states import check_finite, valid_states


def test_valid_states_are_in_reading_order() -> None:
    states = [torch.arange(12.0).reshape(2, 3, 2), -torch.arange(12.0).reshape(2, 3, 2)]
    valid = torch.tensor([[True, False, True], [False, True, False]])
    taken = valid_states(states, valid)
    assert taken.shape == (2, 3, 2)
    assert taken[0].tolist() == [[0, 1], [4, 5], [8, 9]]
    assert torch.equal(taken[1], -taken[0])


def test_states_that_are_not_finite_are_refused() -> None:
    check_finite(torch.ones(2, 3), "forward-seed0")
    for number in (torch.nan, torch.inf):
        with pytest.raises(InputError, match=r"states of forward-seed0 are not finite: its training diverged.*anew"):
            check_finite(torch.tensor([1.0, number]), "forward-seed0")

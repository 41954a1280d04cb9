"""The sentences on a gap prediction: what it shows, and what too few cells cannot show."""

from toys.predictions import cells_of, random_cells, strategies_of, text_of

from layerangles.equivalence.gap_prediction import predict_gaps


def test_too_few_cells_conclude_nothing() -> None:
    two = text_of(predict_gaps(cells_of([1, 2], excess_deg=[1, 2])))
    assert two == (
        "Gap and geometry are both known for 2 cells. A line needs at least 3, so that nothing is fitted and nothing "
        "can be concluded."
    )
    four = text_of(predict_gaps(cells_of([1, 2, 3, 5], excess_deg=[10, 20, 30, 40])))
    assert four.startswith(
        "Gap and geometry are both known for 4 cells. From so few nothing can be concluded: even a perfect rank "
        "correlation has p = 0.083. Excess over the null (4 cells): Spearman 1.00, p = 0.083; slope 0.13, 95 % "
        "interval 0.0555 to 0.205; error for a cell left out 0.669 against 1.97 of the mean of the others."
    )
    five = text_of(predict_gaps(random_cells(5)))
    assert "nothing can be concluded" not in five


def test_a_predictor_is_set_against_the_mean() -> None:
    beaten = predict_gaps(random_cells(12).assign(common_mode_ratio=[1.0, 2.0, 2.0, 1.0] * 3))
    fit = beaten.fits.loc["excess_deg"]
    assert fit["error"] < fit["error_of_mean"]
    assert beaten.fits.loc["common_mode_ratio", "error"] > fit["error_of_mean"]
    less = round(100 * (1 - fit["error"] / fit["error_of_mean"]))
    assert (
        f"is predicted by excess over the null ({less} % less error, 12 cells), of 2 measures tried; one that says "
        "nothing does so about one time in five. The p values are not adjusted for 2 measures being tried."
    ) in text_of(beaten)
    not_beaten = predict_gaps(cells_of([1, 2, 1, 2, 1], excess_deg=[1, 2, 3, 4, 5]))
    assert "No measure predicts the gap of a cell left out better than the mean" in text_of(not_beaten)
    assert "adjusted" not in text_of(not_beaten)


def test_ranks_within_cells_are_summed_up() -> None:
    cells = random_cells(3)
    scores = {"a": [1.0, 2, 3], "b": [4.0, 3, 2, 1]}
    excess = {"a": [1.0, 2, 3], "b": [1.0, 2, 4, 3]}
    text = text_of(predict_gaps(cells, strategies_of(scores, excess_deg=excess)))
    assert (
        "Within 2 cells, excess over the null and the strategies' scores have a Spearman correlation of 0.10 on "
        "average (−0.80 to 1.00), with p < 0.05 in 0. With 4 strategies or fewer in a cell, p cannot be below 0.083 "
        "there."
    ) in text
    one = text_of(predict_gaps(cells, strategies_of({"a": [1, 2, 3, 4, 5]}, excess_deg={"a": [1, 2, 3, 4, 5]})))
    assert one.endswith("the strategies' scores have a Spearman correlation of 1.00, p = 0.017.")
    pairs = text_of(predict_gaps(cells, strategies_of({"a": [1, 2]}, excess_deg={"a": [1, 2]})))
    assert pairs.endswith("Within no cell are there 3 strategies with different scores and geometry to be ranked.")

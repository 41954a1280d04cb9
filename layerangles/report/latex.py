"""Verdicts as a LaTeX table: booktabs, numbers for siunitx."""

import math
from collections.abc import Sequence

from layerangles.equivalence.verdict import Verdict
from layerangles.report.verdict_wording import half_width

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex_table(verdicts: Sequence[Verdict], *, teachers: Sequence[float] | None = None) -> str:
    r"""A table of scores, one block a cell and one row a strategy, closed by the verdict.

    Numbers are ``mean \pm half width`` of the 1 − α interval over seeds, in columns of siunitx (``S``, with
    ``separate-uncertainty``), to two digits of the uncertainty. Needs ``\usepackage{booktabs, siunitx}``.

    Args:
        verdicts: one a cell.
        teachers: the teacher's score of each cell; NaN where there is none.
    """
    known = list(teachers) if teachers is not None else [math.nan] * len(verdicts)
    alpha = verdicts[0].alpha
    lines = [
        "% \\usepackage{booktabs, siunitx}",
        f"% mean over seeds, with half of the {100 * (1 - alpha):g} % interval of the mean",
        "\\sisetup{separate-uncertainty = true}",
        "\\begin{tabular}{l S[table-format=2.4(4)] S[table-format=+2.4(4)] r}",
        "\\toprule",
        "strategy & {score} & {gain over none} & {seeds} \\\\",
    ]
    for verdict, teacher in zip(verdicts, known, strict=True):
        lines += ["\\midrule", *_block(verdict, teacher)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _block(verdict: Verdict, teacher: float) -> list[str]:
    cell = verdict.cell
    better = "" if cell.higher_is_better else ", less is better"
    lines = [f"\\multicolumn{{4}}{{l}}{{\\emph{{{escaped(cell.name)}}} ({escaped(cell.metric)}{better})}} \\\\"]
    if not math.isnan(teacher):
        lines.append(f"teacher & {teacher:.4g} & {{--}} & {{--}} \\\\")
    for name, row in verdict.strategies.iterrows():
        role = " (control)" if row["role"] == "control" else ""
        score = plus_minus(row["score"], half_width(row["low"], row["high"]))
        gain = plus_minus(row["gain"], half_width(row["gain_low"], row["gain_high"]), sign=True)
        lines.append(f"{escaped(str(name))}{role} & {score} & {gain} & {verdict.n_seeds} \\\\")
    spread, margin = verdict.spread, "no margin" if verdict.margin is None else f"margin {verdict.margin}"
    lines.append(
        f"\\multicolumn{{4}}{{l}}{{{verdict.outcome.capitalize()} ({margin}); spread {_interval(*spread)}, "
        f"spread/gain {_interval(*verdict.spread_of_gain)}}} \\\\"
    )
    return lines


def plus_minus(value: float, half: float, *, sign: bool = False) -> str:
    r"""A number and its uncertainty, as siunitx reads them, to two digits of the uncertainty; ``{--}`` for NaN.

    >>> plus_minus(0.78125, 0.01234), plus_minus(12.3456, math.nan), plus_minus(math.nan, math.nan)
    ('0.781 \\pm 0.012', '12.35', '{--}')
    >>> plus_minus(0.78125, 0.0, sign=True)
    '+0.7812 \\pm 0.0000'
    """
    if math.isnan(value):
        return "{--}"
    plus = "+" if sign else ""
    if math.isnan(half):
        return f"{value:{plus}.4g}"
    digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 4
    return f"{value:{plus}.{digits}f} \\pm {half:.{digits}f}"


def _interval(value: float, low: float, high: float) -> str:
    def in_math(number: float) -> str:
        if math.isinf(number):
            return "$\\infty$" if number > 0 else "$-\\infty$"
        return f"\\num{{{number:.3g}}}"

    if math.isnan(value):
        return "unknown"
    return in_math(value) + ("" if math.isnan(low) else f" [{in_math(low)}, {in_math(high)}]")


def escaped(text: str) -> str:
    r"""A text with LaTeX's special characters made plain.

    >>> print(escaped("all_to_one & 5 %"))
    all\_to\_one \& 5 \%
    """
    return "".join(_SPECIAL.get(character, character) for character in text)

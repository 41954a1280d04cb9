"""LaTeX tables of verdicts, for booktabs and siunitx."""

import math
from collections.abc import Sequence

from layerangles.equivalence.verdict import Verdict
from layerangles.notation import percent, siunitx_interval, siunitx_uncertainty

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex_table(verdicts: Sequence[Verdict], *, teachers: Sequence[float] | None = None) -> str:
    r"""A table of scores with one block per cell and one row per strategy; each block ends with the verdict.

    Numbers are ``mean \pm half width`` of the 1 − α interval over seeds, in columns of siunitx (``S``, with
    ``separate-uncertainty``), to two digits of the uncertainty. Needs ``\usepackage{booktabs, siunitx}``.

    Args:
        verdicts: one a cell.
        teachers: the teacher's score of each cell; NaN where there is none.
    """
    known = list(teachers) if teachers is not None else [math.nan] * len(verdicts)
    level = percent(1 - verdicts[0].alpha, space=" ")
    lines = [
        "% \\usepackage{booktabs, siunitx}",
        f"% mean over seeds, with half of the {level} interval of the mean",
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
        lines.append(f"teacher & {siunitx_uncertainty(teacher, math.nan)} & {{--}} & {{--}} \\\\")
    for name, row in verdict.strategies.iterrows():
        role = " (control)" if row["role"] == "control" else ""
        score = siunitx_uncertainty(row["score"], (row["high"] - row["low"]) / 2)
        gain = siunitx_uncertainty(row["gain"], (row["gain_high"] - row["gain_low"]) / 2, signed=True)
        lines.append(f"{escaped(str(name))}{role} & {score} & {gain} & {verdict.n_seeds} \\\\")
    spread, margin = verdict.spread, "no margin" if verdict.margin is None else f"margin {verdict.margin}"
    lines.append(
        f"\\multicolumn{{4}}{{l}}{{{verdict.outcome.capitalize()} ({margin}); spread {siunitx_interval(*spread)}, "
        f"spread/gain {siunitx_interval(*verdict.spread_of_gain)}}} \\\\"
    )
    return lines


def escaped(text: str) -> str:
    r"""A text with LaTeX's special characters escaped.

    >>> print(escaped("all_to_one & 5 %"))
    all\_to\_one \& 5 \%
    """
    return "".join(_SPECIAL.get(character, character) for character in text)

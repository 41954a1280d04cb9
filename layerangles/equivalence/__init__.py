"""Statistics of the claim that the choice of layers does not matter, from scores alone."""

from layerangles.equivalence.cells import Cell, Role, cells_from_frame, read_scores
from layerangles.equivalence.components import variance_components
from layerangles.equivalence.decision import Margin, Outcome
from layerangles.equivalence.intervals import Estimate, fieller, multi_bootstrap
from layerangles.equivalence.power import decision_rates, largest_sd, seeds_to_decide, seeds_to_plan
from layerangles.equivalence.verdict import Verdict, judge

__all__ = [
    "Cell",
    "Estimate",
    "Margin",
    "Outcome",
    "Role",
    "Verdict",
    "cells_from_frame",
    "decision_rates",
    "fieller",
    "judge",
    "largest_sd",
    "multi_bootstrap",
    "read_scores",
    "seeds_to_decide",
    "seeds_to_plan",
    "variance_components",
]

"""Pure functions of tensors: angles, distances, nulls, preprocessing, maps, gradients, and alternative measures."""

from layerangles.geometry.angles import angle_deg, vertex_angles_deg, vertex_cosines
from layerangles.geometry.relations import common_mode_ratio, mean_pairwise_distances

__all__ = ["angle_deg", "common_mode_ratio", "mean_pairwise_distances", "vertex_angles_deg", "vertex_cosines"]

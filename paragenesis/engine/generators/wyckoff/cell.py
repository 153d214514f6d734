"""Cells as six numbers: a, b, c (angstrom) and alpha, beta, gamma (degrees), bound by the crystal family."""

from __future__ import annotations

import numpy as np

from paragenesis.crystals import FloatArray

Cell = tuple[float, ...]


def metric_of(cells: FloatArray) -> FloatArray:
    """The metric tensors of cells (`n x 6`), shape `n x 3 x 3`; right angles are exact."""
    lengths, cosines = cells[:, :3], _cosines(cells[:, 3:])
    metric = lengths[:, :, None] * lengths[:, None, :]
    for angle, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        metric[:, i, j] *= cosines[:, angle]
        metric[:, j, i] *= cosines[:, angle]
    return metric


def cells_of(metrics: FloatArray) -> FloatArray:
    """The cells of metric tensors (`n x 3 x 3`), shape `n x 6`."""
    lengths = np.sqrt(np.diagonal(metrics, axis1=1, axis2=2))
    cosines = [metrics[:, i, j] / (lengths[:, i] * lengths[:, j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(np.stack(cosines, axis=1), -1, 1)))], axis=1)


def lattice_of(cells: FloatArray) -> FloatArray:
    """Lattice vectors as rows of cells (`n x 6`), shape `n x 3 x 3`: a along x, b in the xy plane, right-handed.

    Three angles that no cell can have give a flat cell of volume zero.
    """
    cosines = _cosines(cells[:, 3:])
    sine = np.sqrt(np.maximum(1 - cosines[:, 2] ** 2, 1e-12))
    height = (cosines[:, 0] - cosines[:, 1] * cosines[:, 2]) / sine
    lattices = np.zeros((len(cells), 3, 3))
    lattices[:, 0, 0] = 1.0
    lattices[:, 1, 0], lattices[:, 1, 1] = cosines[:, 2], sine
    lattices[:, 2, 0], lattices[:, 2, 1] = cosines[:, 1], height
    lattices[:, 2, 2] = np.sqrt(np.maximum(1 - cosines[:, 1] ** 2 - height**2, 0.0))
    return np.asarray(lattices * cells[:, :3, None])


def snapped(cell: FloatArray, family: str) -> Cell:
    """A cell (shape `6`) with exactly the equal lengths and the angles that its crystal family asks for."""
    a, b, c, alpha, beta, gamma = (float(value) for value in cell)
    if family == "triclinic":
        return a, b, c, alpha, beta, gamma
    if family == "monoclinic":
        return a, b, c, 90.0, beta, 90.0
    if family == "orthorhombic":
        return a, b, c, 90.0, 90.0, 90.0
    if family == "cubic":
        mean = (a + b + c) / 3
        return mean, mean, mean, 90.0, 90.0, 90.0
    mean = (a + b) / 2
    return mean, mean, c, 90.0, 90.0, 120.0 if family == "hexagonal" else 90.0


def _cosines(angles: FloatArray) -> FloatArray:
    """Cosines of angles in degrees; 90 and 120 degrees are exact."""
    cosines = np.cos(np.radians(angles))
    return np.where(angles == 90.0, 0.0, np.where(angles == 120.0, -0.5, cosines))

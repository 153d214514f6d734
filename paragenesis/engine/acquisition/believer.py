"""What candidates are worth once others are picked or pending: as if these had come out as expected.

That is the Kriging believer of D. Ginsbourger, R. Le Riche & L. Carraro (2010). A pick that comes out as expected moves
no expectation, but it pushes the front, and where the errors of two candidates go together it tells about the other
one, which then promises no further surprise: the batch spreads over what is not known, not over copies of one hope.
"""

from __future__ import annotations

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.hypervolume import Boxes
from paragenesis.engine.acquisition.pool import Pool
from paragenesis.engine.acquisition.scalarise import Scalarisations

Front = Boxes | Scalarisations

_NUGGET = 1e-9  # share of a variance that is never told, which keeps the picks' own correlations regular


class Believer:
    """Expected gains of a pool's candidates as the picks grow."""

    def __init__(self, pool: Pool, front: Front) -> None:
        """Begin with nothing picked; `front` is what is verified or pending."""
        self._pool, self._front, self._believed = pool, front, 0
        self._rows = np.zeros(0, dtype=np.int64)
        self._together = np.zeros((pool.mean.shape[1], 0, 0))

    def gain(self, rows: IntArray, picked: IntArray) -> FloatArray:
        """Expected improvement of some rows, shape as `rows`; `picked` begins with the picks of the call before."""
        for utilities in self._pool.mean[picked[self._believed :]]:
            self._front = self._front.beyond(utilities)
        self._believed = len(picked)
        return self._front.expected_gain(self._pool.mean[rows], self._pool.std[rows] * self._untold(rows, picked))

    def _untold(self, rows: IntArray, picked: IntArray) -> FloatArray:
        """The share of each standard deviation that is left when picks and pending are known, shape `len(rows) x m`.

        Of jointly normal utilities with the correlations C that is `sqrt(1 - C_rp C_pp^-1 C_pr)`.
        """
        told_of = np.concatenate([len(self._pool) + np.arange(self._pool.waiting), picked])
        if self._pool.correlation is None or not len(told_of):
            return np.ones((len(rows), self._pool.mean.shape[1]))
        if not np.isin(np.concatenate([rows, told_of]), self._rows).all():
            self._rows = np.union1d(rows, told_of)
            self._together = self._pool.correlation(self._rows)
        at, known = np.searchsorted(self._rows, rows), np.searchsorted(self._rows, told_of)
        cross = self._together[:, known[:, None], at]
        among = self._together[:, known[:, None], known] + _NUGGET * np.eye(len(known))
        told = (cross * np.linalg.solve(among, cross)).sum(1)
        share: FloatArray = np.sqrt(np.clip(1.0 - told, 0.0, 1.0)).T
        return share

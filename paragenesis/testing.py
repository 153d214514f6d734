"""Small deterministic stand-ins for tests: fast, without weights, through the same contracts as the real parts."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.contract import refuse_unhonoured
from paragenesis.engine.level import Level
from paragenesis.errors import InputError
from paragenesis.objectives.sample import sample_relaxed as sample_relaxed  # relaxed crystals without a potential
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from paragenesis.engine.potentials.contract import Potential

# --- Lennard-Jones potential --------------------------------------------------------------------------------------


@functools.cache
def lennard_jones_potential(device: str = "cpu") -> Potential:
    """A Lennard-Jones potential for all elements: milliseconds a crystal, and chemistry matters a little.

    Bond lengths are sums of covalent radii, bonds are the stronger the more electronegativities differ, so unlike atoms
    like each other and compounds have negative formation energies. It claims nothing about real crystals.
    """
    import torch

    from paragenesis.engine.potentials.contract import Potential
    from paragenesis.engine.potentials.lennard_jones import LennardJonesModel

    radii, strengths = _pair_tables()
    return Potential(
        name="lennard-jones",
        model=LennardJonesModel(radii, strengths, device=torch.device(device)),
        level=Level(engine="lennard-jones", version="1", functional="lennard-jones"),
        elements=frozenset(range(1, len(radii))),
    )


def load_lennard_jones(
    *, device: str = "cpu", sha256: str | None = None, functional: str | None = None, trust: bool = False
) -> Potential:
    """`lennard_jones_potential` under the signature of the other loaders; it has no weights to check."""
    del sha256, functional, trust
    return lennard_jones_potential(device)


@functools.cache
def _pair_tables() -> tuple[FloatArray, FloatArray]:
    """Distance (A) and depth (eV) of the pair minimum by atomic numbers, shape `97 x 97` both; row 0 is unused."""
    from ase.data import covalent_radii
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity
        chi = np.array([2.0] + [Element.from_Z(z).X for z in range(1, 97)])
    chi = np.nan_to_num(chi, nan=2.0)
    radii = covalent_radii[:97]
    return radii[:, None] + radii[None, :], 0.2 + 0.15 * np.abs(chi[:, None] - chi[None, :])


# --- Random generator ---------------------------------------------------------------------------------------------


class RandomSettings(Settings):
    """What random crystals are made of where the condition leaves it free.

    Attributes:
        elements: Their symbols.
        spacing: Edge of a cube per atom, angstrom.
    """

    elements: tuple[str, ...] = ("Na", "Cl", "Mg", "O")
    spacing: float = 2.6


class RandomGenerator:
    """Crystals with two to four atoms at random places of a nearly cubic cell; microseconds each, mostly nonsense."""

    honours = frozenset({"allowed_elements", "chemical_system", "min_atoms", "max_atoms"})

    def __init__(self, settings: RandomSettings | None = None) -> None:
        """Take the settings."""
        self.settings = settings or RandomSettings()

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        """N random crystals.

        Raises:
            InputError: A part of the condition is not honoured.
        """
        from ase.data import atomic_numbers

        refuse_unhonoured("random", self.honours, condition)
        rng = np.random.default_rng(seed)
        exact = condition.exact_elements
        elements = exact or condition.allowed_elements or self.settings.elements
        origin = self.origin(condition)
        least = max(condition.min_atoms, len(exact or ()), 2)
        most = max(min(condition.max_atoms, 4), least)
        parts = []
        for i in range(n):
            size = int(rng.integers(least, most + 1))
            symbols = [*(exact or ()), *rng.choice(elements, size - len(exact or ()), p=self.frequencies(elements))]
            edge = self.settings.spacing * size ** (1 / 3)
            parts.append(
                Crystals(
                    ids=(str(i),),
                    n_atoms=np.array([size]),
                    numbers=np.array([atomic_numbers[s] for s in symbols]),
                    frac=rng.random((size, 3)),
                    lattices=(edge * (np.eye(3) + 0.1 * rng.standard_normal((3, 3))))[None],
                    origins=(origin,),
                )
            )
        return Crystals.concatenate(parts)

    def frequencies(self, elements: tuple[str, ...]) -> FloatArray | None:
        """How often each element is drawn, shape of `elements`; None for all alike."""
        return None

    def origin(self, condition: Condition) -> str:
        """How the crystals were made, in words."""
        return "random"


class LearningRandomGenerator(RandomGenerator):
    """Random crystals with elements as frequent as in the crystals that it has learnt from.

    Its weights are 119 frequencies. What is wished of the properties that it knows changes nothing but the origin,
    where it can be read.
    """

    honours = RandomGenerator.honours | {"properties"}
    properties = frozenset({"energy_above_hull", "formation_energy_per_atom", "density"})

    def __init__(self, settings: RandomSettings | None = None, weights: Path | None = None) -> None:
        """Take the settings, and the frequencies from a file; without one all elements are alike."""
        from safetensors.numpy import load_file

        super().__init__(settings)
        self._weights = np.ones(119) if weights is None else load_file(weights)["frequencies"]

    def frequencies(self, elements: tuple[str, ...]) -> FloatArray | None:
        """How often each element is drawn, shape of `elements`."""
        from ase.data import atomic_numbers

        mine = self._weights[[atomic_numbers[symbol] for symbol in elements]]
        return np.asarray(mine / mine.sum(), dtype=np.float64)

    def origin(self, condition: Condition) -> str:
        """Random, and what was wished.

        Raises:
            InputError: A property is unknown.
        """
        for wish in condition.properties:
            if wish.property not in self.properties:
                raise InputError(
                    f"the property '{wish.property}' is unknown; known are {', '.join(sorted(self.properties))}"
                )
        wishes = [f"{w.property} from {w.low} to {w.high}" for w in condition.properties]
        return ", ".join(["random", *wishes])

    def learn(self, crystals: Crystals, labels: Mapping[str, FloatArray], *, out: Path, seed: int) -> Path:
        """Count the atoms of each element."""
        from safetensors.numpy import save_file

        del labels, seed
        save_file({"frequencies": 1.0 + np.bincount(crystals.numbers, minlength=119)}, out)
        return out

    def with_weights(self, weights: Path) -> LearningRandomGenerator:
        """The same generator with other frequencies."""
        return type(self)(self.settings, weights)

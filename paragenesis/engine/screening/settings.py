"""The settings of screening."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from paragenesis.settings import Settings

AFLOW = "aflow"


class ScreeningSettings(Settings):
    """What a crystal must be to be kept.

    Attributes:
        min_volume_per_atom: A^3; the densest known solids (diamond 5.7, high-pressure phases) stay above 4.
        max_volume_per_atom: A^3; caesium, the thinnest metal, has about 117.
        overlap_factor: Two atoms overlap if nearer than this times the sum of their covalent radii.
        charge_neutrality: Whether compositions must be neutral and balanced in electronegativity (SMACT's rule;
            alloys and intermetallics are exempt).
        symprec: Distance within which atoms count as symmetric, angstrom; the space group is found with it, and the
            primitive cell for comparisons with twice as much.
        novelty: Whether crystals of the reference set are rejected.
        reference: The reference set: "aflow" (the AFLOW prototypes as they are, in their own chemistry), or the path
            of a CIF, extxyz, CSV or Parquet file.
        length_tolerance: Fractional tolerance of cell lengths for two crystals to be the same.
        site_tolerance: Tolerance of sites, as a fraction of the cube root of the volume per atom.
        angle_tolerance: Tolerance of cell angles, degrees.
    """

    min_volume_per_atom: float = Field(default=4.0, gt=0)
    max_volume_per_atom: float = Field(default=150.0, gt=0)
    overlap_factor: float = Field(default=0.6, ge=0, le=1)
    charge_neutrality: bool = True
    symprec: float = Field(default=0.1, gt=0, le=0.5)
    novelty: bool = True
    reference: str = AFLOW
    length_tolerance: float = Field(default=0.2, gt=0, lt=1)
    site_tolerance: float = Field(default=0.3, gt=0, lt=1)
    angle_tolerance: float = Field(default=5.0, gt=0, lt=45)

    def located(self, directory: Path) -> ScreeningSettings:
        """The settings with a relative reference path taken from `directory`."""
        if self.reference == AFLOW:
            return self
        return self.model_copy(update={"reference": str(directory / self.reference)})

    @model_validator(mode="after")
    def _volumes_in_order(self) -> ScreeningSettings:
        if self.min_volume_per_atom >= self.max_volume_per_atom:
            raise ValueError(
                f"min_volume_per_atom ({self.min_volume_per_atom:g}) must be below max_volume_per_atom "
                f"({self.max_volume_per_atom:g})"
            )
        return self

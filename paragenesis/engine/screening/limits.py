"""How large, slow and hungry crystals and files from outside may be."""

from __future__ import annotations

from pydantic import Field

from paragenesis.settings import Settings


class InputLimits(Settings):
    """How large crystals and files from outside may be, and what may be spent on them.

    Attributes:
        max_file_bytes: Size of a file after decompression, and of a table once it is unpacked.
        max_text_bytes: Size of the text of one CIF, POSCAR or frame of an extxyz file.
        max_line_length: Characters of a line of a CIF; the format itself allows 2,048.
        max_atoms: Atoms of one crystal.
        max_symmetry_operations: Operations in one CIF; no space group has more than 192 in its conventional cell.
        max_sites_times_operations: Work that a CIF asks of the parser (5,000 take some seconds).
        max_seconds: Processor time that a parser may spend on one text.
        max_file_seconds: Time that all texts of one file may take together.
        max_memory_bytes: Memory that a parser may take for one text.
    """

    max_file_bytes: int = Field(default=500_000_000, gt=0)
    max_text_bytes: int = Field(default=1_000_000, gt=0)
    max_line_length: int = Field(default=2_048, gt=0)
    max_atoms: int = Field(default=500, gt=0)
    max_symmetry_operations: int = Field(default=192, gt=0)
    max_sites_times_operations: int = Field(default=5_000, gt=0)
    max_seconds: int = Field(default=60, gt=0)
    max_file_seconds: int = Field(default=3_600, gt=0)
    max_memory_bytes: int = Field(default=2_000_000_000, gt=0)

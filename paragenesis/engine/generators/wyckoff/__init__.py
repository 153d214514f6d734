"""Crystals by their symmetry: Wyckoff positions, forms, and the generator that learns them."""

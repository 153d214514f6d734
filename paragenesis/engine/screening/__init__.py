"""Screening: is it valid, does it obey the condition, is it unique and novel; each rejection with its reason."""

from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.sanitise import sanitise, sanitise_text
from paragenesis.engine.screening.screen import Screen, Screening
from paragenesis.engine.screening.settings import ScreeningSettings

__all__ = ["InputLimits", "Screen", "Screening", "ScreeningSettings", "Seen", "sanitise", "sanitise_text"]

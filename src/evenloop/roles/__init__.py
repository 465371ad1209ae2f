"""Frames: verbs with roles and nouns, their random field, their scores, and whom they name."""

from __future__ import annotations

from evenloop.roles.layout import Layout, Slots
from evenloop.roles.potentials import Potentials

__all__ = ["Layout", "Potentials", "Slots"]

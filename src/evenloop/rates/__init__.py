"""Group rates and gaps of anyone's predictions: arrays in, a table out."""

from evenloop.rates.count import group_counts
from evenloop.rates.tables import bootstrap_gaps, group_gaps, group_rates

__all__ = ["bootstrap_gaps", "group_counts", "group_gaps", "group_rates"]

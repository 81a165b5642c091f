"""Plots of a comparison, one kind per file."""

from .all_plots import draw_plots as draw_plots
from .style import Plot as Plot

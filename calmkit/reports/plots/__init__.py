"""Plots of a comparison, one kind per file."""

from .every import draw_plots as draw_plots
from .style import Plot as Plot

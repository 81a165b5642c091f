"""Pictures of a comparison, one idea in each file."""

from .every import draw_plots as draw_plots
from .style import Plot as Plot

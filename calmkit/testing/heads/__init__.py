"""The contracts of generative heads."""

"""The contracts of backbones."""

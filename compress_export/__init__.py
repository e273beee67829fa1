"""Command line and pipeline: the one package that knows every stage."""

__version__ = "0.1.0"

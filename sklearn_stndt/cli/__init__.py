"""The command ``python -m sklearn_stndt``: rates, decoding and the benchmark without Python."""

from sklearn_stndt.cli.main import main

__all__ = ["main"]

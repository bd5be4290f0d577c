"""Adapters to the software of closed loops: the FALCON benchmark, and ezmsg."""

from sklearn_stndt.live.falcon import FalconDecoder

__all__ = ["FalconDecoder"]

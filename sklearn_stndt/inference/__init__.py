"""Rates of recordings of any length, from a trained network with a window of fixed length."""

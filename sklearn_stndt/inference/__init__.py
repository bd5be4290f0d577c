"""Rates of recordings of any length, from a trained network that sees one window at a time."""

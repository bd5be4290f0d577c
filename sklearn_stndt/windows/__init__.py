"""Segments of continuous time, windows cut from them, and arrays larger than memory."""

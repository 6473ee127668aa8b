"""Whiteroom: an open, self-hosted implementation of AWS Clean Rooms ML."""

__version__ = "0.1.0"

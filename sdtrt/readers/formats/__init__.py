"""Formats of engine files: one file or folder each, listed from here."""

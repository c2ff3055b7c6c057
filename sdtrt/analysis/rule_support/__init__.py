"""Shared by rules: the view of an engine, kernel names, and layers that only move data."""

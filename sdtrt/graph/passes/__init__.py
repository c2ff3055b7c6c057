"""Graph passes: one file each, listed from this folder."""

"""Model families: one file each, listed from this folder."""

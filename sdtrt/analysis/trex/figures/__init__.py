"""Figures over layer tables, as TREx draws them."""

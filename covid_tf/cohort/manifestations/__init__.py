"""Kinds of disease among slices (paper, section 3.3)."""

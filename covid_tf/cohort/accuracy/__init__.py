"""Detection and severity over a cohort (paper, section 3.2)."""

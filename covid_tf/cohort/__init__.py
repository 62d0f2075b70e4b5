"""Many results: detection, severity, follow-up, manifestations.

Reads results, never models.
"""

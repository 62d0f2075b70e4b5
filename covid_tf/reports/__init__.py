"""What is written of a result: JSON, NIfTI, HTML, figures. Reads results, never models."""

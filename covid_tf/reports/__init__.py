"""What is written of a result: JSON, NIfTI, HTML, figures; never asks a model."""

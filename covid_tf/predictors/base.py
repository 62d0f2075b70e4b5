"""What `analyze` asks of its models: anything with these methods will do."""

from typing import Protocol

import numpy as np

from covid_tf import results


class Models(Protocol):
  """The two networks, wherever they run.

  Batching, retries and transport are the predictor's business: callers pass as
  many slices as they have. Slices are in the usual orientation, and the classifier's
  cropped to the lung box of the case (`contract.REQUIRED_INPUT`): `analyze` sees to
  both, and no shape shows where a caller did not. A context manager; closing frees what it holds.
  A predictor may also have
    `identities() -> tuple[results.ModelIdentity, ...]`, lungs first, and
    `study()`, a context manager that gives Models pinned to one version of each
    network, and raises errors.ModelVersionChangedError when that version goes.
  """

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    """int16 [N, H, W] in HU to uint8 [N, H, W], 0 or 1."""

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    """int16 [N, h, w] lung crops in HU to probabilities and both CAM scales."""

  def features(self, hu: np.ndarray) -> results.SliceFeatures:
    """int16 [N, h, w] lung crops in HU to pooled features and gradients."""

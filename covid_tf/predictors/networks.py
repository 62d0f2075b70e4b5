"""The two networks as `analyze` asks for them, whatever carries the batches."""

import abc
from collections.abc import Iterator

import numpy as np

from covid_tf import contract
from covid_tf import results
from covid_tf.predictors import batches


class Networks(abc.ABC):
  """segment_lungs, grad_cam and features over batches of one signature."""

  @abc.abstractmethod
  def answers(
      self, model: str, signature: str, hu: np.ndarray
  ) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
    """Yields (slices, checked outputs) for all of `hu`, in order."""

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    """Finds the lungs.

    Args:
      hu: int16 [N, H, W].

    Returns:
      uint8 [N, H, W], 1 inside the lungs.

    Raises:
      errors.ModelError: the model or its server failed.
    """
    return self._collect(contract.LUNGS_MODEL, contract.SERVING_DEFAULT,
                         hu)['lung_mask']

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    """Classifies and localizes int16 [N, h, w] lung crops; raises ModelError."""
    return results.SliceExplanation(**self._collect(
        contract.CLASSIFIER_MODEL, contract.GRAD_CAM, hu))

  def features(self, hu: np.ndarray) -> results.SliceFeatures:
    """Describes int16 [N, h, w] lung crops by features; raises ModelError."""
    return results.SliceFeatures(**self._collect(
        contract.CLASSIFIER_MODEL, contract.FEATURES, hu))

  def _collect(self, model, signature, hu) -> dict[str, np.ndarray]:
    batches.check_hu(hu)
    # One block an output, made before the first answer: no second copy at the end.
    whole = {
        spec.name: np.empty(
            (hu.shape[0], *(asked if size is None else size for size, asked in zip(
                spec.shape[1:], hu.shape[1:], strict=False))), spec.dtype)
        for spec in contract.SIGNATURES[model][signature].outputs}
    if hu.shape[0]:
      for slices, outputs in self.answers(model, signature, hu):
        for name, array in outputs.items():
          whole[name][slices.start:slices.stop] = array
    return whole

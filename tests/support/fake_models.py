"""Models for tests of what is built around the networks: plain arithmetic on HU."""

import numpy as np

from covid_tf import contract
from covid_tf import results

IDENTITIES = (
  results.ModelIdentity('lungs', 1, 'a' * 64),
  results.ModelIdentity('classifier', 2, 'b' * 64),
)


class FakeModels:
  """Air inside the body is lung; the denser a crop, the higher its probability.

  Attributes:
    lung_calls: slices of each call of `segment_lungs`.
    crops: shape of each crop given to `grad_cam`.
  """

  def __init__(self):
    self.lung_calls = []
    self.crops = []

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    return None

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    return IDENTITIES

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    self.lung_calls.append(len(hu))
    return ((hu > -1000) & (hu < -300)).astype(np.uint8)

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    self.crops.append(hu.shape)
    dense = ((hu > -700) & (hu < -300)).astype(np.float32)
    share = dense.mean(axis=(1, 2))
    return results.SliceExplanation(
      (1 - np.exp(-60 * share)).astype(np.float32),
      _normalized_blocks(dense, contract.FINE_CAM_SIZE),
      _normalized_blocks(dense, contract.COARSE_CAM_SIZE),
    )


def _normalized_blocks(images: np.ndarray, side: int) -> np.ndarray:
  """float32 [N, side, side]: means of blocks, each map divided by its maximum."""
  maps = np.zeros((len(images), side, side), np.float32)
  rows = np.linspace(0, images.shape[1], side + 1).astype(int)
  columns = np.linspace(0, images.shape[2], side + 1).astype(int)
  for i in range(side):
    for j in range(side):
      block = images[
        :,
        rows[i] : max(rows[i + 1], rows[i] + 1),
        columns[j] : max(columns[j + 1], columns[j] + 1),
      ]
      maps[:, i, j] = block.mean(axis=(1, 2))
  highest = maps.max(axis=(1, 2), keepdims=True)
  return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)

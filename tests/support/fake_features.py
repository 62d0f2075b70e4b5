"""Models whose features a test can follow, and studies of known kinds.

The classifier is a linear one: pooled features are averages over the crop, and the
gradient of the logit is one vector for all slices, as under global average pooling
and one dense unit.
"""

import fake_models
import numpy as np
import synthetic_case

from covid_tf import contract
from covid_tf import results
from covid_tf import volume

FOCAL = (((-85, 30, -40), (24, 22, 30)),)
DIFFUSE = tuple(
  ((x, y, z), (30, 24, 30))
  for x in (-90, 82)
  for y in (-30, 45)
  for z in (-80, -20, 40)
)


class LinearModels(fake_models.FakeModels):
  """FakeModels with features: soft tissue and opacity in blocks of the crop."""

  def __init__(self, seed: int = 0):
    super().__init__()
    rng = np.random.default_rng(seed)
    self._disease = rng.gamma(1, 1, (49, contract.FEATURE_COUNT)).astype(np.float32)
    self._anatomy = rng.gamma(1, 1, (16, contract.FEATURE_COUNT)).astype(np.float32)
    self.gradient = rng.normal(size=contract.FEATURE_COUNT).astype(np.float32)
    self.feature_calls = 0

  def features(self, hu: np.ndarray) -> results.SliceFeatures:
    self.feature_calls += 1
    if not len(hu):
      empty = np.zeros((0, contract.FEATURE_COUNT), np.float32)
      return results.SliceFeatures(np.zeros(0, np.float32), empty, empty)
    opacity = _block_means((hu > -700) & (hu < -300), 7)
    tissue = _block_means(hu > -200, 4)
    pooled = (opacity @ self._disease + 2 * tissue @ self._anatomy).astype(np.float32)
    return results.SliceFeatures(
      self.grad_cam(hu).covid_probability, pooled, np.tile(self.gradient, (len(hu), 1))
    )


def make_study(kind: str, seed: int) -> volume.CTVolume:
  """A patient of a kind ('none', 'focal' or 'diffuse'), a little unlike the others."""
  rng = np.random.default_rng(seed)
  lesions = {'none': (), 'focal': FOCAL, 'diffuse': DIFFUSE}[kind]
  moved = tuple(
    (tuple(np.add(centre, rng.normal(0, 4, 3))), half_axes)
    for centre, half_axes in lesions
  )
  shape = (20, 56, 84)
  affine = synthetic_case.axial_affine((13.0, 4.5, 4.5), shape)
  return synthetic_case.make_volume(
    affine, shape, moved, study_uid=f'1.2.3.{seed}', series_uid=f'1.2.3.{seed}.1'
  )


def _block_means(mask: np.ndarray, side: int) -> np.ndarray:
  """float32 [N, side * side]: share of each block of the crop."""
  rows = np.array_split(np.arange(mask.shape[1]), side)
  columns = np.array_split(np.arange(mask.shape[2]), side)
  return np.stack(
    [mask[:, r][:, :, c].mean(axis=(1, 2)) for r in rows for c in columns], axis=1
  ).astype(np.float32)

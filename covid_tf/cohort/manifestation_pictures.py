"""Slices small enough to keep beside their features, and the way up."""

import numpy as np
from PIL import Image

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.reports import pictures
from covid_tf.reports import plane_view

SIDE = 128  # Pixels of the longer side: key slices are shown at two centimetres.


def small_pictures(
    volume: volume_lib.CTVolume, box: results.LungBox, crops: np.ndarray,
    maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Lung crops and their maps as small pictures, the patient's right on the left.

  Args:
    volume: the CT, for its directions and spacing.
    box: where the crops lie.
    crops: int16 [N, rows, columns], HU.
    maps: float32 [N, rows, columns], in [0, 1].

  Returns:
    (uint8 [N, height, width] in the lung window, the same of the maps, 255 for 1).
  """
  view = plane_view.plane_view(
      volume.affine, volume.shape, 'axial', (slice(None), box.rows, box.columns))
  if view.fixed_axis != 0:  # Slices that are not axial are shown as they are stored.
    view = None

  def placed(crop: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The crop as it is shown, and the (rows, columns) of its small picture."""
    shown, (height, width) = crop, crop.shape
    if view:
      plane = np.zeros(volume.shape[1:], np.uint8)
      plane[box.rows, box.columns] = crop
      shown, (height, width) = view.picture(plane), view.size_mm
    scale = SIDE / max(height, width)
    return shown, (max(1, round(height * scale)), max(1, round(width * scale)))

  def small(crop: np.ndarray) -> np.ndarray:
    shown, size = placed(pictures.lung_window(crop))
    return np.asarray(Image.fromarray(np.ascontiguousarray(shown)).resize(
        size[::-1], Image.Resampling.BILINEAR))

  def small_map(map_: np.ndarray) -> np.ndarray:
    shown, size = placed(np.rint(255 * map_).astype(np.uint8))
    return pictures.with_peaks(shown, tuple(np.divide(size, shown.shape)))

  if not len(crops):
    return np.zeros((0, 1, 1), np.uint8), np.zeros((0, 1, 1), np.uint8)
  return np.stack(list(map(small, crops))), np.stack(list(map(small_map, maps)))

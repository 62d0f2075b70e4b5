"""The 3D map in the lungs as a shaded picture: a small volume renderer.

Lungs are a thin bluish shell, the map glows inside: emission and absorption are
summed front to back along parallel rays. Enough for a report, without a GPU.
"""

import dataclasses

from nibabel import orientations
import numpy as np
from scipy import ndimage

from covid_tf import results
from covid_tf.reports import pictures

VOXEL_MM = 2.5  # Of the rendered grid; the map itself is no finer than 10 mm.
_MARGIN_VOXELS = 4
_SHELL_COLOUR = np.array((150, 178, 205), np.float32) / 255
_SHELL_OPACITY = 0.11  # A voxel, where the shell is steepest.
_HEAT_OPACITY = 0.45  # A voxel, at map value 1.
_LIGHT = np.array((-0.35, -0.45, -0.82))  # Towards the light: left, above, behind us.
_AMBIENT = 0.35


@dataclasses.dataclass(frozen=True)
class LungScene:
  """Lungs and map on one cubic grid along the patient's axes.

  Attributes:
    lungs: float32 [z, y, x], share of lung in each voxel, in [0, 1]; z to the
      head, y to the back, x to the patient's left, VOXEL_MM apart.
    heat: float32 [z, y, x], the localization map, in [0, 1].
  """

  lungs: np.ndarray
  heat: np.ndarray


def lung_scene(
    lung_mask: np.ndarray, localization: results.LocalizationMap,
    affine: np.ndarray) -> LungScene:
  """Brings a mask and its map to a cubic grid along the patient's axes.

  An oblique grid is turned to the nearest axes, not resampled: this is a picture.

  Args:
    lung_mask: uint8 [slice, row, column], 0 or 1, not empty.
    localization: the map on the same grid.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
  """
  steps_mm = np.linalg.norm(affine[:3, :3], axis=0)
  stride = np.maximum(1, (VOXEL_MM / steps_mm[1:]).astype(int))
  lungs = lung_mask[:, ::stride[0], ::stride[1]].astype(np.float32)
  heat = np.zeros(lungs.shape, np.float32)
  for index, map_ in zip(localization.slices, localization.maps):
    plane = np.zeros(lung_mask.shape[1:], np.float32)
    plane[localization.box.rows, localization.box.columns] = map_
    heat[index] = plane[::stride[0], ::stride[1]]
  around = ndimage.find_objects(lungs.astype(np.uint8))[0]
  steps_mm[1:] *= stride
  orientation = orientations.io_orientation(affine)
  return LungScene(*(
      _cubic(block[around], steps_mm, orientation) for block in (lungs, heat)))


def render(scene: LungScene, turn_degrees: float, tilt_degrees: float = 0.0):
  """Looks at the scene from one side.

  Args:
    scene: what to look at.
    turn_degrees: 0 from the front (patient's right on the viewer's left), 90 from
      the patient's right, -90 from the left, 180 from behind.
    tilt_degrees: how far from above (positive) or below.

  Returns:
    uint8 [rows, columns, 4], VOXEL_MM a pixel, transparent outside the lungs.
  """
  lungs, heat = (
      _turned(block, turn_degrees, tilt_degrees) for block in (scene.lungs, scene.heat))
  return _composited(ndimage.gaussian_filter(lungs, 1.0), heat)


def _cubic(block, steps_mm, orientation):
  """[slice, row, column] to [z, y, x] along the patient's axes, VOXEL_MM apart."""
  order = [int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in (2, 1, 0)]
  turned = np.transpose(block, order)
  for axis, source in enumerate(order):
    turned = np.flip(turned, axis) if orientation[source, 1] < 0 else turned
  zoom = [steps_mm[source] / VOXEL_MM for source in order]
  cubic = ndimage.zoom(turned, zoom, order=1, mode='nearest', grid_mode=True)
  return np.pad(cubic, _MARGIN_VOXELS)


def _turned(block, turn_degrees, tilt_degrees):
  """[z, y, x] to [down, depth, across] as seen from one side."""
  view = block[::-1]  # Down is to the feet; depth grows from front to back.
  quarters, rest = divmod(turn_degrees + 45, 90)
  # Quarter turns are exact; only what is left of them is interpolated.
  view = np.rot90(view, int(quarters), axes=(2, 1))
  for angle, axes in ((rest - 45, (2, 1)), (tilt_degrees, (1, 0))):
    if angle:
      view = ndimage.rotate(view, angle, axes, order=1, reshape=True)
  return view


def _composited(lungs, heat):
  shell, shade = _shell(lungs)
  colours = pictures.heat_colours(heat)
  glow = colours[..., 3].astype(np.float32) / 255 * _HEAT_OPACITY
  light = np.zeros((*lungs.shape[::2], 3), np.float32)
  left = np.ones(lungs.shape[::2], np.float32)  # Share of the light not yet stopped.
  for depth in range(lungs.shape[1]):
    for opacity, colour in (
        (shell[:, depth], _SHELL_COLOUR * shade[:, depth, :, np.newaxis]),
        (glow[:, depth], colours[:, depth, :, :3] / np.float32(255))):
      light += (left * opacity)[..., np.newaxis] * colour
      left *= 1 - opacity
  alpha = 1 - left
  colour = light / np.maximum(alpha, 1e-6)[..., np.newaxis]
  picture = np.concatenate((colour, alpha[..., np.newaxis]), axis=-1)
  return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _shell(lungs):
  """Opacity and brightness of the lungs' surface, from the mask's gradient."""
  gradient = np.stack(np.gradient(lungs), axis=-1)  # Of down, depth, across.
  steepness = np.linalg.norm(gradient, axis=-1)
  normal = -gradient / np.maximum(steepness, 1e-6)[..., np.newaxis]
  light = np.array((_LIGHT[1], _LIGHT[2], _LIGHT[0]), np.float32)
  shade = _AMBIENT + (1 - _AMBIENT) * np.clip(normal @ light, 0, 1)
  opacity = np.clip(steepness * 4, 0, 1) * _SHELL_OPACITY
  return opacity, shade

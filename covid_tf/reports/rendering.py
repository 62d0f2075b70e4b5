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

VOXEL_MM = 2.5  # Of the usual grid; the map itself is no finer than 10 mm.
_MARGIN_MM = 10
_SHELL_COLOUR = np.array((150, 178, 205), np.float32) / 255
_SHELL_OPACITY = 0.11  # A voxel of 2.5 mm, where the shell is steepest.
_HEAT_OPACITY = 0.70  # A voxel of 2.5 mm, of what is opaque on a slice.
_LIGHT = np.array((-0.35, -0.45, -0.82))  # Towards the light: left, above, behind us.
_AMBIENT = 0.35


@dataclasses.dataclass(frozen=True)
class LungScene:
  """Lungs and map on one cubic grid along the patient's axes.

  Attributes:
    lungs: float32 [z, y, x], share of lung in each voxel, in [0, 1]; z to the
      head, y to the back, x to the patient's left.
    heat: float32 [z, y, x], the localization map, in [0, 1].
    voxel_mm: millimetres between voxels, the same along each axis.
  """

  lungs: np.ndarray
  heat: np.ndarray
  voxel_mm: float


def lung_scene(
  lung_mask: np.ndarray,
  localization: results.LocalizationMap,
  affine: np.ndarray,
  voxel_mm: float = VOXEL_MM,
) -> LungScene:
  """Brings a mask and its map to a cubic grid along the patient's axes.

  An oblique grid is turned to the nearest axes, not resampled: this is a picture.

  Args:
    lung_mask: uint8 [slice, row, column], 0 or 1, not empty.
    localization: the map on the same grid.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
    voxel_mm: of the scene.
  """
  steps_mm = np.linalg.norm(affine[:3, :3], axis=0)
  stride = np.maximum(1, (voxel_mm / steps_mm[1:]).astype(int))
  lungs = lung_mask[:, :: stride[0], :: stride[1]].astype(np.float32)
  heat = np.zeros(lungs.shape, np.float32)
  for index, map_ in zip(localization.slices, localization.maps):
    plane = np.zeros(lung_mask.shape[1:], np.float32)
    plane[localization.box.rows, localization.box.columns] = map_
    heat[index] = _block_maxima(plane, stride)
  # Also a positive slice beyond the last one with lung is shown.
  around = ndimage.find_objects(((lungs > 0) | (heat > 0)).astype(np.uint8))[0]
  steps_mm[1:] *= stride
  orientation = orientations.io_orientation(affine)
  zoom, margin = steps_mm / voxel_mm, round(_MARGIN_MM / voxel_mm)
  return LungScene(
    _cubic(lungs[around], zoom, orientation, margin, _interpolated),
    _cubic(heat[around], zoom, orientation, margin, pictures.with_peaks),
    voxel_mm,
  )


def render(
  scene: LungScene, turn_degrees: float, tilt_degrees: float = 0.0
) -> np.ndarray:
  """Looks at the scene from one side.

  Args:
    scene: what to look at.
    turn_degrees: 0 from the front (patient's right on the viewer's left), 90 from
      the patient's right, -90 from the left, 180 from behind.
    tilt_degrees: how far from above (positive) or below.

  Returns:
    uint8 [rows, columns, 4], scene.voxel_mm a pixel, transparent outside the lungs.
  """
  lungs, heat = (
    _turned(block, turn_degrees, tilt_degrees) for block in (scene.lungs, scene.heat)
  )
  return _composited(
    ndimage.gaussian_filter(lungs, VOXEL_MM / scene.voxel_mm),
    heat,
    scene.voxel_mm / VOXEL_MM,
  )


def _block_maxima(plane, stride):
  """The largest value of each block, in place of every `stride`-th."""
  for axis, length in enumerate(plane.shape):
    plane = np.maximum.reduceat(plane, np.arange(0, length, stride[axis]), axis=axis)
  return plane


def _interpolated(block, zoom):
  return ndimage.zoom(block, zoom, order=1, mode='nearest', grid_mode=True)


def _cubic(block, steps, orientation, margin, resample):
  """[slice, row, column], `steps` voxels apart, to a cubic [z, y, x] grid."""
  order = [int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in (2, 1, 0)]
  turned = np.transpose(block, order)
  for axis, source in enumerate(order):
    turned = np.flip(turned, axis) if orientation[source, 1] < 0 else turned
  zoom = [steps[source] for source in order]
  return np.pad(resample(turned, zoom), margin)


def _turned(block, turn_degrees, tilt_degrees):
  """[z, y, x] to [down, depth, across] as seen from one side."""
  if tilt_degrees == 0 and turn_degrees % 90 == 0:  # Exact, and a hundred times faster.
    return np.rot90(block[::-1], int(turn_degrees // 90), axes=(2, 1))
  axes = _view_axes(np.radians(turn_degrees), np.radians(tilt_degrees))
  # The scene's corners, from its centre, say how large the turned block is.
  half = np.array(block.shape) / 2
  shape = np.ceil(2 * np.abs(axes) @ half - 1e-3).astype(int)
  centre = (np.array(block.shape) - 1) / 2 - axes.T @ ((shape - 1) / 2)
  return ndimage.affine_transform(block, axes.T, centre, tuple(shape), order=1)


def _view_axes(turn, tilt) -> np.ndarray:
  """float64 [3, 3]: down, depth and across as directions of (z, y, x)."""
  level_depth = np.array((0, np.cos(turn), np.sin(turn)))
  across = np.array((0, -np.sin(turn), np.cos(turn)))
  up = np.array((1.0, 0, 0))
  depth = np.cos(tilt) * level_depth - np.sin(tilt) * up
  down = -np.cos(tilt) * up - np.sin(tilt) * level_depth
  return np.stack((down, depth, across))


def _composited(lungs, heat, thickness):
  """Looks through [down, depth, across] voxels, `thickness` times VOXEL_MM thick."""
  shell, shade = _shell(lungs, thickness)
  colours = pictures.heat_colours(heat)
  # Times the value once more: what counts must outshine what does not.
  strength = colours[..., 3].astype(np.float32) / 255 * heat
  glow = _opacity(strength * _HEAT_OPACITY, thickness)
  light = np.zeros((*lungs.shape[::2], 3), np.float32)
  left = np.ones(lungs.shape[::2], np.float32)  # Share of the light not yet stopped.
  for depth in range(lungs.shape[1]):
    for opacity, colour in (
      (shell[:, depth], _SHELL_COLOUR * shade[:, depth, :, np.newaxis]),
      (glow[:, depth], colours[:, depth, :, :3] / np.float32(255)),
    ):
      light += (left * opacity)[..., np.newaxis] * colour
      left *= 1 - opacity
  alpha = 1 - left
  colour = light / np.maximum(alpha, 1e-6)[..., np.newaxis]
  picture = np.concatenate((colour, alpha[..., np.newaxis]), axis=-1)
  return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _opacity(of_usual_voxel, thickness):
  return 1 - (1 - of_usual_voxel) ** np.float32(thickness)


def _shell(lungs, thickness):
  """Opacity and brightness of the lungs' surface, from the mask's gradient."""
  gradient = np.stack(np.gradient(lungs), axis=-1)  # Of down, depth, across.
  steepness = np.linalg.norm(gradient, axis=-1)
  normal = -gradient / np.maximum(steepness, 1e-6)[..., np.newaxis]
  light = np.array((_LIGHT[1], _LIGHT[2], _LIGHT[0]), np.float32)
  shade = _AMBIENT + (1 - _AMBIENT) * np.clip(np.einsum('...i,i', normal, light), 0, 1)
  steepness = np.clip(steepness * (4 / thickness), 0, 1)
  return _opacity(steepness * _SHELL_OPACITY, thickness), shade

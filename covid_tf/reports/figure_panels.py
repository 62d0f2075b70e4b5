"""Pictures of a case on matplotlib's axes: planes with map, outlines, renderings."""

from matplotlib import patheffects
import matplotlib.axes
import matplotlib.colors
import numpy as np

from covid_tf.analysis import localization
from covid_tf.reports import pictures

LUNGS = '#58C4F5'
_DARK = '#0A0E13'
_MARGIN_PIXELS = 7  # Around a rendering.


def enlarged(cam, size):
  """A Grad-CAM map, float32 [row, column], interpolated to (rows, columns)."""
  rows = localization.interpolation_matrix(cam.shape[0], size[0])
  columns = localization.interpolation_matrix(cam.shape[1], size[1])
  return rows @ cam @ columns.T


def on_grid(crop, box, shape):
  """float32 [row, column] of a CT of `shape`: a crop in its box, 0 around it."""
  plane = np.zeros(shape[1:], np.float32)
  plane[box.rows, box.columns] = crop
  return plane


def draw_grey(
  axes: matplotlib.axes.Axes, view: pictures.PlaneView, hu: np.ndarray
) -> tuple[float, float, float, float]:
  """Draws a plane of a CT through the lung window.

  Args:
    axes: where.
    view: of what is shown of it.
    hu: int16 [row, column], the whole plane.

  Returns:
    What it covers on the axes, for what is drawn over it.
  """
  height, width = view.size_mm
  extent = (0.0, width, height, 0.0)  # Millimetres, so that the proportions are true.
  axes.imshow(
    pictures.lung_window(view.picture(hu)),
    cmap='gray',
    vmin=0,
    vmax=255,
    extent=extent,
    interpolation='bilinear',
  )
  return extent


def draw_plane(axes, view, hu, map_, box):
  """Draws a slice through the lung window, with a map over it or None.

  Args:
    axes: where.
    view: the `pictures.PlaneView` of what is shown.
    hu: int16 [row, column], the whole slice.
    map_: float32, the size of `box`, in [0, 1]; or None.
    box: the lung box.
  """
  extent = draw_grey(axes, view, hu)
  if map_ is not None:
    plane = view.picture(on_grid(map_, box, (1, *hu.shape)))
    axes.imshow(pictures.heat_colours(plane), extent=extent, interpolation='bilinear')
  axes.set_anchor('N')  # The colour bar is below.
  for side, x, y in (('left', 0.04, 0.5), ('right', 0.96, 0.5), ('top', 0.5, 0.92)):
    draw_letter(axes, x, y, view.markers[side])
  axes.set_axis_off()


def trimmed(view):
  """Without the empty rows and columns around a turned scene."""
  shown = view[..., 3] > 2
  rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
  return view[
    max(0, rows[0] - _MARGIN_PIXELS) : rows[-1] + _MARGIN_PIXELS,
    max(0, columns[0] - _MARGIN_PIXELS) : columns[-1] + _MARGIN_PIXELS,
  ]


def draw_rendering(axes, view, tallest, letters):
  """Draws uint8 RGBA [row, column, 4] on dark, in the middle of `tallest` rows.

  Letters are those of the left and right edge and of the lower one.
  """
  above = (tallest - view.shape[0]) // 2
  canvas = np.zeros((tallest, view.shape[1], 4), np.uint8)
  canvas[above : above + view.shape[0]] = view
  alpha = canvas[..., 3:] / 255
  dark = np.array(matplotlib.colors.to_rgb(_DARK)) * 255
  axes.imshow(np.rint(canvas[..., :3] * alpha + dark * (1 - alpha)).astype(np.uint8))
  for letter, x, y in zip(letters, (0.05, 0.95, 0.5), (0.5, 0.5, 0.93)):
    draw_letter(axes, x, y, letter)
  axes.set_axis_off()


def draw_letter(axes, x, y, letter):
  """Writes a letter of a side at (x, y), shares of the picture from its lower left."""
  axes.text(
    x,
    y,
    letter,
    transform=axes.transAxes,
    ha='center',
    va='center',
    color='white',
    fontsize=7,
    fontweight='bold',
    path_effects=[patheffects.withStroke(linewidth=1.5, foreground='black')],
  )


def draw_contour(axes, view, plane, level, colour):
  """Draws where a plane on the CT's grid crosses `level`, in the view's millimetres."""
  picture = view.picture(plane)
  if picture.max() <= level:
    return
  down = (np.arange(picture.shape[0]) + 0.5) * view.down.step_mm
  across = (np.arange(picture.shape[1]) + 0.5) * view.across.step_mm
  axes.contour(across, down, picture, [level], colors=colour, linewidths=0.8)

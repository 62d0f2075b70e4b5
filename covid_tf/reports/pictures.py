"""CT planes, maps and outlines as the small images and paths of an HTML page.

Everything is placed in millimetres by the page, so an image's own pixels only
decide how sharp it is, never its proportions.
"""

import base64
import dataclasses
import functools
import io
from typing import cast

import contourpy
import matplotlib
import matplotlib.path
from nibabel import orientations
import numpy as np
from PIL import Image
from scipy import ndimage

# Lung window: level -600 HU, width 1500 HU, the usual one of chest reading.
WINDOW_HU = (-1350, 150)
# 'inferno' rises evenly in lightness: it reads with any colour vision and in grey.
# Its dark start would be lost on the lung, so it begins where it is purple.
COLOUR_MAP = 'inferno'
_FIRST_COLOUR = 0.30
_FAINTEST = 0.15  # Map values up to here are left clear.
_OPACITY = (0.25, 0.75)  # Just above _FAINTEST, and at 1.
LUNG_GREY = 75  # Aerated lung through the window, below a colour bar.
_LEVELS = 64  # Colours of a heat image: a small palette, and no step can be seen.
_OUTLINE_PIXEL_MM = 1.5  # Masks are resampled to about this before they are outlined.
_OUTLINE_TOLERANCE_MM = 0.4  # An outline may leave its contour by so much.


def lung_window(hu: np.ndarray) -> np.ndarray:
  """uint8 grey of HU through the lung window."""
  low, high = WINDOW_HU
  clipped = (np.clip(hu, low, high) - low).astype(np.uint32)
  return (clipped * 255 // (high - low)).astype(np.uint8)


def grey_uri(picture: np.ndarray, size: tuple[int, int], quality: int) -> str:
  """Data URI of a grey picture, resized to (rows, columns) and compressed.

  Args:
    picture: uint8 [rows, columns].
    size: (rows, columns) of the image; never more than the picture has.
    quality: of WebP, 0 to 100.
  """
  rows, columns = np.minimum(size, picture.shape).tolist()
  image = Image.fromarray(np.ascontiguousarray(picture)).resize((columns, rows))
  return _uri(image, 'webp', quality=quality, method=2)


def heat_uri(picture: np.ndarray, step_mm: tuple[float, float], columns: int) -> str:
  """Data URI of a map in [0, 1] as colour with transparency.

  Pixels of the image are about square in millimetres, whatever those of the picture
  are. No value is averaged away: a slice as thin as you like keeps its colour.

  Args:
    picture: float32 [rows, columns].
    step_mm: millimetres between pixel centres, down and across.
    columns: about how many the image has; fewer where pixels are large.
  """
  pixel_mm = picture.shape[1] * step_mm[1] / columns
  zoom = (step / pixel_mm for step in step_mm)
  shown = with_peaks(
    picture, tuple(factor if factor < 1 else round(factor) for factor in zoom)
  )
  levels = np.rint(np.clip(shown, 0, 1) * (_LEVELS - 1)).astype(np.uint8)
  image = Image.fromarray(levels)
  palette = heat_colours(np.linspace(0, 1, _LEVELS))
  image.putpalette(palette[:, :3].tobytes())
  return _uri(image, 'png', transparency=palette[:, 3].tobytes(), optimize=False)


def with_peaks(block: np.ndarray, zoom: tuple[float, ...]) -> np.ndarray:
  """Brings a map to another grid over the same extent, and keeps its maxima.

  Where pixels become fewer, each is the largest of those it replaces; where they
  become more, a pixel is repeated: it is as large as it was.

  Args:
    block: a map, of any number of axes.
    zoom: of each axis, about how many pixels of the result to one of the block.

  Returns:
    The map on the other grid, at least one pixel along each axis.
  """
  for axis, factor in enumerate(zoom):
    length = block.shape[axis]
    count = max(1, round(length * factor))
    if count < length:
      starts = np.arange(count) * length // count
      block = np.maximum.reduceat(block, starts, axis=axis)
    elif count > length:
      centres = (np.arange(count) * 2 + 1) * length // (2 * count)
      block = np.take(block, centres, axis=axis)
  return block


def rgba_uri(picture: np.ndarray) -> str:
  """Data URI of uint8 [rows, columns, 4]."""
  return _uri(Image.fromarray(np.ascontiguousarray(picture)), 'webp', quality=80)


def heat_colours(values: np.ndarray) -> np.ndarray:
  """uint8 [..., 4]: colour and opacity of map values in [0, 1]."""
  return _heat_table()[np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)]


@functools.cache
def _heat_table() -> np.ndarray:
  values = np.linspace(0, 1, 256)
  colours = matplotlib.colormaps[COLOUR_MAP](
    _FIRST_COLOUR + (1 - _FIRST_COLOUR) * values
  )
  rise = (values - _FAINTEST) / (1 - _FAINTEST)
  opacity = _OPACITY[0] + (_OPACITY[1] - _OPACITY[0]) * rise
  colours[:, 3] = np.where(rise > 0, opacity, 0)
  return np.rint(colours * 255).astype(np.uint8)


def css_gradient() -> str:
  """The colours from 0 to 1, over dark lung, as a CSS background for a colour bar."""
  colours = heat_colours(np.linspace(0, 1, 21)).astype(float)
  opacity = colours[:, 3:] / 255
  over_lung = colours[:, :3] * opacity + LUNG_GREY * (1 - opacity)
  stops = (f'rgb({red:.0f},{green:.0f},{blue:.0f})' for red, green, blue in over_lung)
  return f'linear-gradient(to right,{",".join(stops)})'


def outline(mask: np.ndarray, step_mm: tuple[float, float]) -> str:
  """SVG path, in tenths of its millimetres, around what is set.

  Smoothed over a few millimetres, never over pixels, so that a slice of 8 mm is
  outlined as one of 1 mm; what smoothing would wipe out keeps an outline of its own.

  Args:
    mask: bool [rows, columns], or 0 and 1.
    step_mm: millimetres between pixel centres, down and across.

  Returns:
    The path's `d`; '' where nothing is set.
  """
  share, touched, step_mm = _at_outline_pixels(mask, step_mm)
  # Padded, so that what touches the edge is closed there; smoothed, because the
  # steps of a mask's pixels are no anatomy.
  padded = ndimage.uniform_filter(np.pad(share, 1), 3, mode='nearest')
  inside = ndimage.maximum_filter(padded > 0.5, 3)
  padded[np.pad(touched, 1) & ~inside] = 1  # Too thin to survive the smoothing.
  # As separate arrays, contourpy's usual form, of which its types do not know.
  lines = cast(list[np.ndarray], contourpy.contour_generator(z=padded).lines(0.5))
  # Pixel centres lie half a step inside the picture; the padding took one more.
  parts = [(line - 0.5) * (step_mm[1], step_mm[0]) for line in lines]
  return ''.join(_path(part) for part in parts if len(part) > 3)


def _at_outline_pixels(mask, step_mm):
  """Share of the mask and whether it is touched, at pixels of _OUTLINE_PIXEL_MM.

  Smaller pixels are averaged in blocks, larger ones interpolated.
  """
  blocks = [
    max(1, min(round(_OUTLINE_PIXEL_MM / step), length))
    for step, length in zip(step_mm, mask.shape)
  ]
  repeats = [max(1, round(step / _OUTLINE_PIXEL_MM)) for step in step_mm]
  image = Image.fromarray(np.ascontiguousarray(mask, np.float32)).reduce(
    (blocks[1], blocks[0])
  )
  touched = np.asarray(image) > 0
  rows, columns = np.multiply(touched.shape, repeats).tolist()
  share = np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
  return (
    share,
    np.kron(touched, np.ones(repeats, bool)),
    tuple(
      step * block / repeat for step, block, repeat in zip(step_mm, blocks, repeats)
    ),
  )


def _path(points: np.ndarray) -> str:
  path = matplotlib.path.Path(points)
  path.simplify_threshold = _OUTLINE_TOLERANCE_MM
  path = path.cleaned(simplify=True)
  vertices, codes = np.asarray(path.vertices), np.asarray(path.codes)
  kept = vertices[np.isin(codes, (path.MOVETO, path.LINETO))]
  tenths = np.rint(kept * 10).astype(int)
  steps = np.diff(tenths, axis=0).ravel().tolist()
  return f'M{tenths[0, 0]} {tenths[0, 1]}l{" ".join(map(str, steps))}z'


def _uri(image, kind, **options) -> str:
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return f'data:image/{kind};base64,' + base64.b64encode(buffer.getvalue()).decode()


# Which way up: how a plane of the CT is laid on a page, decided by the affine.
#
# Radiology's convention: the patient's right on the viewer's left, the front at the
# top of an axial picture, the head at the top of a coronal or sagittal one.

_LETTERS = (('R', 'L'), ('A', 'P'), ('F', 'H'))  # Low and high end of LPS x, y, z.
_NAMES = {0: 'sagittal', 1: 'coronal', 2: 'axial'}  # By the LPS axis looked along.
_X, _Y, _Z = 0, 1, 2
# An edge that leans 15 degrees or more to a second axis names that one too ('HA').
_SECOND_LETTER = np.sin(np.radians(15))


@dataclasses.dataclass(frozen=True)
class PictureAxis:
  """One side of a picture.

  Attributes:
    axis: the array axis (0 slice, 1 row, 2 column) that runs along it.
    start, stop: the indices shown, half open.
    reversed: the array runs against the picture (up, or to the left).
    step_mm: millimetres between voxel centres.
  """

  axis: int
  start: int
  stop: int
  reversed: bool
  step_mm: float

  @property
  def length_mm(self) -> float:
    """From the outer face of the first voxel to that of the last."""
    return (self.stop - self.start) * self.step_mm

  @property
  def shown(self) -> slice:
    """Crops an array to what is shown, in the order of the picture."""
    if not self.reversed:
      return slice(self.start, self.stop)
    return slice(self.stop - 1, self.start - 1 if self.start else None, -1)

  def place_mm(self, index: float) -> float:
    """Millimetres from the picture's top or left edge to a voxel's centre."""
    steps = self.stop - index if self.reversed else index + 1 - self.start
    return (steps - 0.5) * self.step_mm


@dataclasses.dataclass(frozen=True)
class PlaneView:
  """How planes that fix one array axis are shown.

  Attributes:
    name: 'axial', 'coronal' or 'sagittal', the nearest.
    fixed_axis: the array axis that a plane fixes.
    down, across: the picture's sides.
    markers: 'top', 'bottom', 'left' and 'right' to letters of R L A P H F.
  """

  name: str
  fixed_axis: int
  down: PictureAxis
  across: PictureAxis
  markers: dict[str, str]

  @property
  def size_mm(self) -> tuple[float, float]:
    """(height, width)."""
    return self.down.length_mm, self.across.length_mm

  @property
  def step_mm(self) -> tuple[float, float]:
    """Millimetres between pixel centres, (down, across)."""
    return self.down.step_mm, self.across.step_mm

  def picture(self, plane: np.ndarray) -> np.ndarray:
    """Crops, turns and flips `plane` [first other axis, second other axis]."""
    if self.down.axis > self.across.axis:
      plane = plane.T
    return plane[self.down.shown, self.across.shown]


def plane_view(
  affine: np.ndarray,
  shape: tuple[int, int, int],
  looked_along: str,
  shown: tuple[slice, slice, slice] = (slice(None),) * 3,
) -> PlaneView:
  """The view of a volume along one direction of the patient.

  Args:
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
    shape: (slices, rows, columns).
    looked_along: 'axial', 'coronal' or 'sagittal'.
    shown: the part of each array axis to show.
  """
  world = orientations.io_orientation(affine)[:, 0].astype(int)  # Of array axes.
  world_fixed = {name: axis for axis, name in _NAMES.items()}[looked_along]
  # Across runs to the patient's left, or to the back where x is looked along;
  # down runs to the feet, or to the back where z is.
  across_world = _Y if world_fixed == _X else _X
  down_world = _Y if world_fixed == _Z else _Z
  down_direction = -1 if down_world == _Z else 1
  axis_of = {int(axis): number for number, axis in enumerate(world)}
  sides = {}
  for name, world_axis, direction in (
    ('down', down_world, down_direction),
    ('across', across_world, 1),
  ):
    axis = axis_of[world_axis]
    start, stop, _ = shown[axis].indices(shape[axis])
    sides[name] = PictureAxis(
      axis,
      start,
      stop,
      bool(affine[world_axis, axis] * direction < 0),
      float(np.linalg.norm(affine[:3, axis])),
    )
  return PlaneView(
    looked_along,
    axis_of[world_fixed],
    **sides,
    markers=_markers(affine, sides['down'], sides['across']),
  )


def _markers(affine, down, across) -> dict[str, str]:
  markers: dict[str, str] = {}
  for side, low, high in ((down, 'top', 'bottom'), (across, 'left', 'right')):
    direction = affine[:3, side.axis] / np.linalg.norm(affine[:3, side.axis])
    direction = -direction if side.reversed else direction
    markers |= {low: _letters(-direction), high: _letters(direction)}
  return markers


def _letters(direction) -> str:
  """The end of the patient a unit vector points to, and a second one if oblique."""
  order = np.argsort(-np.abs(direction))
  return ''.join(
    _LETTERS[axis][int(direction[axis] > 0)]
    for number, axis in enumerate(order)
    if number == 0 or (number == 1 and abs(direction[axis]) >= _SECOND_LETTER)
  )

"""CT planes, maps and outlines as the small images and paths of an HTML page.

Everything is placed in millimetres by the page, so an image's own pixels only
decide how sharp it is, never its proportions.
"""

import base64
import functools
import io

import contourpy
import matplotlib
import matplotlib.path
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
_LUNG_GREY = 75  # Aerated lung through the window, below a colour bar.
_LEVELS = 64  # Colours of a heat image: a small palette, and no step can be seen.
_OUTLINE_PIXEL_MM = 1.5  # Masks are averaged to about this before they are outlined.
_OUTLINE_TOLERANCE_MM = 0.4  # An outline may leave its contour by so much.


def lung_window(hu: np.ndarray) -> np.ndarray:
  """uint8 grey of HU through the lung window."""
  low, high = WINDOW_HU
  clipped = (np.clip(hu, low, high) - low).astype(np.uint32)
  return (clipped * 255 // (high - low)).astype(np.uint8)


def grey_uri(picture: np.ndarray, size: tuple[int, int], quality: int) -> str:
  """Data URI of a grey picture, brought to (rows, columns) and compressed.

  Args:
    picture: uint8 [rows, columns].
    size: (rows, columns) of the image; never more than the picture has.
    quality: of WebP, 0 to 100.
  """
  rows, columns = np.minimum(size, picture.shape).tolist()
  image = Image.fromarray(np.ascontiguousarray(picture)).resize((columns, rows))
  return _uri(image, 'webp', quality=quality, method=2)


def heat_uri(picture: np.ndarray, columns: int) -> str:
  """Data URI of a map in [0, 1] as colour with transparency.

  Args:
    picture: float32 [rows, columns].
    columns: of the image at most; the rows keep the proportion of the pixels.
  """
  rows = max(2, round(picture.shape[0] * min(1, columns / picture.shape[1])))
  image = Image.fromarray(np.ascontiguousarray(picture, np.float32)).resize(
      (min(columns, picture.shape[1]), rows), Image.Resampling.BILINEAR)
  levels = np.rint(np.clip(image, 0, 1) * (_LEVELS - 1)).astype(np.uint8)
  image = Image.fromarray(levels)
  palette = heat_colours(np.linspace(0, 1, _LEVELS))
  image.putpalette(palette[:, :3].tobytes())
  return _uri(image, 'png', transparency=palette[:, 3].tobytes(), optimize=False)


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
      _FIRST_COLOUR + (1 - _FIRST_COLOUR) * values)
  rise = (values - _FAINTEST) / (1 - _FAINTEST)
  opacity = _OPACITY[0] + (_OPACITY[1] - _OPACITY[0]) * rise
  colours[:, 3] = np.where(rise > 0, opacity, 0)
  return np.rint(colours * 255).astype(np.uint8)


def css_gradient() -> str:
  """The colours from 0 to 1, over dark lung, as a CSS background for a colour bar."""
  colours = heat_colours(np.linspace(0, 1, 21)).astype(float)
  opacity = colours[:, 3:] / 255
  over_lung = colours[:, :3] * opacity + _LUNG_GREY * (1 - opacity)
  stops = (f'rgb({red:.0f},{green:.0f},{blue:.0f})' for red, green, blue in over_lung)
  return f'linear-gradient(to right,{",".join(stops)})'


def outline(picture: np.ndarray, step_mm: tuple[float, float], level: float) -> str:
  """SVG path, in tenths of its millimetres, where `picture` crosses `level`.

  Args:
    picture: [rows, columns]: a mask, or a map.
    step_mm: millimetres between pixel centres, down and across.
    level: the value to outline.

  Returns:
    The path's `d`; '' where nothing is above the level.
  """
  picture, step_mm = _averaged(picture, step_mm)
  # Padded, so that what touches the edge is closed there; smoothed, because the
  # steps of a mask's pixels are no anatomy.
  padded = ndimage.uniform_filter(np.pad(picture, 1), 3, mode='nearest')
  lines = contourpy.contour_generator(z=padded).lines(level)
  # Pixel centres lie half a step inside the picture; the padding took one more.
  parts = [(line - 0.5) * (step_mm[1], step_mm[0]) for line in lines]
  return ''.join(_path(part) for part in parts if len(part) > 3)


def _averaged(picture, step_mm):
  """Blocks of pixels averaged to pixels of about _OUTLINE_PIXEL_MM."""
  rows, columns = (
      max(1, min(round(_OUTLINE_PIXEL_MM / step), length))
      for step, length in zip(step_mm, picture.shape))
  image = Image.fromarray(np.ascontiguousarray(picture, np.float32))
  return (np.asarray(image.reduce((columns, rows))),
          (step_mm[0] * rows, step_mm[1] * columns))


def _path(points: np.ndarray) -> str:
  path = matplotlib.path.Path(points)
  path.simplify_threshold = _OUTLINE_TOLERANCE_MM
  path = path.cleaned(simplify=True)
  kept = path.vertices[np.isin(path.codes, (path.MOVETO, path.LINETO))]
  tenths = np.rint(kept * 10).astype(int)
  steps = np.diff(tenths, axis=0).ravel().tolist()
  return f'M{tenths[0, 0]} {tenths[0, 1]}l{" ".join(map(str, steps))}z'


def _uri(image, kind, **options) -> str:
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return f'data:image/{kind};base64,' + base64.b64encode(buffer.getvalue()).decode()

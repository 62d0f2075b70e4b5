"""Key pictures of a result as pixels: for archives, which show images and no pages.

Three pictures: the numbers, the most affected slices, the lungs in 3D. Words
that must not be lost are drawn into each; none names the patient or a date.
"""

from collections.abc import Iterable, Sequence
import functools
import pathlib
import textwrap

import matplotlib
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from scipy import ndimage

from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.reports import case_pictures
from covid_tf.reports import pictures
from covid_tf.reports import rendering
from covid_tf.storage import result_json
from covid_tf.storage.dicom import objects

_WIDTH = 1200  # Of each picture, in pixels: workstations show it without scaling.
_TILES = 3  # Slices side by side, at most.
_GAP, _LEFT = 12, 24
_WHITE, _GREY, _RED = (255, 255, 255), (170, 170, 170), (190, 30, 30)
_LUNGS = (88, 196, 245)  # Of outlines, as on the report.
_LINE_CHARACTERS = 112  # Of a card's small text.
_MOST_WARNINGS = 6

RESEARCH = 'RESEARCH USE ONLY. Made by software; no person has confirmed it.'
DEMO = 'DEMO MODELS, trained on phantoms: NO MEASUREMENT OF A PATIENT'
_ATTENTION = (
  'Model attention: where the network looked. No drawn outline, no diagnosis.'
)


def key_pictures(
  volume: volume_lib.CTVolume, result: results.CaseResult
) -> tuple[objects.KeyPicture, ...]:
  """Summary, most affected slices, and the map in the lungs in 3D.

  Args:
    volume: the CT; its slices must be nearest to axial.
    result: its score, on the same grid.

  Raises:
    ValueError: the two have different grids, or the slices are not axial.
  """
  maker = case_pictures.CasePictures(volume, result)
  return _summary(result), _slices(maker.axial, volume, result), _sides(result)


# The slices.


def _slices(
  view: pictures.PlaneView, volume: volume_lib.CTVolume, result: results.CaseResult
) -> objects.KeyPicture:
  most = case_pictures.most_affected_slices(result)
  shown = most or [case_pictures.shown_place(result).index]
  across = min(max(2, len(shown)), _TILES)
  size = _tile_size(view, across)
  tiles = [_slice(view, volume, result, index, size) for index in shown]
  if not most:
    title, words = 'slice', 'No slice counts in the Corona score; a slice of the lungs.'
  elif len(most) == 1:
    title, words = 'most affected slice', 'The only slice that counts.'
  else:
    title = 'most affected slices'
    words = f'The {len(most)} slices with most of the Corona score, largest first.'
  threshold = result.thresholds.map
  pixels = _page(
    result,
    f'{words} Colour: Grad-CAM, 0 to 1; white outline: above {threshold:g}, counted; '
    'blue: lungs.',
    _grid(tiles, across),
    with_legend=True,
  )
  return objects.KeyPicture(
    pixels,
    title,
    f'{words} Lung window; over it the Grad-CAM map of a slice classifier in colour, '
    f'outlines of the lungs and of map values above {threshold:g}.',
    tuple(shown),
    (view.markers['right'], view.markers['bottom']),
  )


def _tile_size(view: pictures.PlaneView, across: int) -> tuple[int, int]:
  """(rows, columns) with square pixels, so many side by side."""
  columns = _columns(across)
  height_mm, width_mm = view.size_mm
  return max(1, round(columns * height_mm / width_mm)), columns


def _slice(
  view: pictures.PlaneView,
  volume: volume_lib.CTVolume,
  result: results.CaseResult,
  index: int,
  size: tuple[int, int],
) -> Image.Image:
  """One slice with map, outlines, its numbers, and letters of the patient's sides."""

  def resized(plane: np.ndarray, how: Image.Resampling) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(view.picture(plane)))
    return np.asarray(image.resize(size[::-1], how))

  grey = resized(pictures.lung_window(volume.hu[index]), Image.Resampling.BILINEAR)
  map_ = resized(result.localization.slice_map(index), Image.Resampling.BILINEAR)
  lungs = resized(result.lung_mask[index], Image.Resampling.NEAREST) > 0
  pixels = _over(
    np.repeat(grey[..., np.newaxis], 3, axis=2), pictures.heat_colours(map_)
  )
  pixels[_edge(lungs)] = _LUNGS
  pixels[_edge(map_ > result.thresholds.map)] = _WHITE
  tile = Image.fromarray(pixels)
  probability = float(result.slice_probability[index])
  _write(tile, (8, 6), f'slice {index}', 17)
  _write(
    tile,
    (8, size[0] - 26),
    f'{result.corona_score_by_slice_cm3[index]:.1f} cm³, probability {probability:.2f}',
    17,
  )
  _sides_letters(tile, view.markers['left'], view.markers['right'])
  return tile


def _over(pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
  """uint8 [..., 3] under uint8 [..., 4]."""
  opacity = colours[..., 3:].astype(np.float32) / 255
  mixed = pixels * (1 - opacity) + colours[..., :3] * opacity
  return np.asarray(np.rint(mixed).astype(np.uint8))


def _edge(mask: np.ndarray) -> np.ndarray:
  """bool: pixels of a mask that touch its outside."""
  return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=1))


# The lungs from all sides.


def _sides(result: results.CaseResult) -> objects.KeyPicture:
  scene = rendering.lung_scene(result.lung_mask, result.localization, result.affine)
  seen = []
  for title, turn, left, right in case_pictures.VIEWS:
    seen.append((title, left, right, rendering.render(scene, turn)))
  columns = _columns(len(seen))
  # One scale for all sides, or the sides of one chest would differ in size.
  scale = columns / max(picture.shape[1] for *_, picture in seen)
  tiles = [_side(*side, columns, scale) for side in seen]
  words = f'Lungs (pale shell) and the Grad-CAM map in them, from {len(seen)} sides.'
  pixels = _page(result, words, _grid(tiles, len(tiles)), with_legend=True)
  return objects.KeyPicture(pixels, 'lungs in 3D', f'{words} Rendered.')


def _side(
  title: str, left: str, right: str, picture: np.ndarray, columns: int, scale: float
) -> Image.Image:
  black = np.zeros((*picture.shape[:2], 3), np.uint8)
  image = Image.fromarray(_over(black, picture))
  rows, width = (max(1, round(length * scale)) for length in picture.shape[:2])
  tile = Image.new('RGB', (columns, rows + 30))
  place = ((columns - width) // 2, 30)
  tile.paste(image.resize((width, rows), Image.Resampling.LANCZOS), place)
  _write(tile, (8, 4), title, 18)
  _sides_letters(tile, left, right)
  return tile


# The numbers.


def _summary(result: results.CaseResult) -> objects.KeyPicture:
  rows = [*_numbers(result)]
  small = [*_wrapped(_remarks(result))]
  body = Image.new('RGB', (_WIDTH, 30 + 40 * len(rows) + 26 * len(small)))
  place = 10
  for name, value in rows:
    _write(body, (_LEFT, place), name, 24, _GREY)
    _write(body, (_WIDTH // 2, place), value, 24)
    place += 40
  place += 12
  for line in small:
    _write(body, (_LEFT, place), line, 17, _GREY)
    place += 26
  pixels = _page(result, _ATTENTION, body)
  return objects.KeyPicture(
    pixels,
    'summary',
    'Numbers of the Corona score as text, made of all slices of the series.',
  )


def _numbers(result: results.CaseResult) -> Iterable[tuple[str, str]]:
  by_region = result.corona_score_by_region_cm3

  def regions(*names: str) -> str:
    return ', '.join(f'{name} {by_region[name]:.1f}' for name in names) + ' cm³'

  yield 'Corona score', f'{result.corona_score_cm3:.1f} cm³'
  yield '   inside the lungs', f'{result.corona_score_in_lung_cm3:.1f} cm³'
  yield '   by side', regions('right', 'left')
  yield '   by height', regions('apical', 'middle', 'basal')
  threshold = result.thresholds.case_corona_score_cm3
  if result.case_detected is not None and threshold is not None:
    verb = 'above' if result.case_detected else 'not above'
    yield 'Threshold of a case', f'{verb} {threshold:g} cm³'
  yield 'Lung volume', f'{result.lung_volume_cm3:.0f} cm³'
  yield 'Involved share of the lungs', f'{100 * result.involved_lung_fraction:.1f} %'
  measured = lung_measures.quoted(
    result.densities, result.zone_score, result.zone_score_by_density
  )
  if 'zone_score' in measured:
    yield 'Zone score, by the network', f'{measured["zone_score"]:.0f} of 24'
  if 'mean_lung_density_hu' in measured:
    yield 'Mean density of the lungs', f'{measured["mean_lung_density_hu"]:.0f} HU'


def _remarks(result: results.CaseResult) -> Iterable[str]:
  yield (
    f'Counted: map above {result.thresholds.map:g} in slices with a probability above '
    f'{result.thresholds.slice_probability:g}; '
    f'{len(result.positive_slices)} of {result.shape[0]} slices.'
  )
  models = ', '.join(
    f'{model.name} {model.version} (card {model.card_sha256[:12]})'
    for model in result.models
  )
  yield f'{result.software}; models: {models}.'
  if result.edits:
    for text in result.edits.in_words():
      yield f'Edited by a person: {text}'
  # That of demo models is a band of its own.
  warnings = [text for text in result.warnings if text != result_json.DEMO_WARNING]
  for text in warnings[:_MOST_WARNINGS]:
    yield f'Warning: {text}'
  if len(warnings) > _MOST_WARNINGS:
    yield f'{len(warnings) - _MOST_WARNINGS} more warnings in the structured report.'


def _wrapped(texts: Iterable[str]) -> Iterable[str]:
  for text in texts:
    yield from textwrap.wrap(text, _LINE_CHARACTERS, subsequent_indent='   ')


# Pages and words.


def _page(
  result: results.CaseResult,
  words: str,
  body: Image.Image,
  *,
  with_legend: bool = False,
) -> np.ndarray:
  """uint8 [row, column, 3]: heading, what must not be lost, words, body, legend."""
  top = 130 if result.demo_models else 90
  page = Image.new('RGB', (_WIDTH, top + 32 + body.height + 70))
  _write(
    page, (_LEFT, 10), f'covid-tf   Corona score {result.corona_score_cm3:.1f} cm³', 30
  )
  _write(page, (_LEFT, 54), RESEARCH, 22, (255, 215, 90))
  if result.demo_models:
    ImageDraw.Draw(page).rectangle((0, 90, _WIDTH, 124), fill=_RED)
    _write(page, (_LEFT, 94), DEMO, 22)
  _write(page, (_LEFT, top), words, 17, _GREY)
  page.paste(body, (0, top + 32))
  foot = top + 32 + body.height + 16
  if with_legend:
    _legend(page, foot, result.thresholds.map)
  else:
    _write(page, (_LEFT, foot), RESEARCH, 17, _GREY)
  return np.asarray(page)


def _legend(page: Image.Image, top: int, threshold: float) -> None:
  """The map's colours over dark lung, from 0 to 1, and where counting begins."""
  columns, rows = 240, 18
  values = np.repeat(np.linspace(0, 1, columns, dtype=np.float32)[np.newaxis], rows, 0)
  under = np.full((rows, columns, 3), pictures.LUNG_GREY, np.uint8)
  bar = Image.fromarray(_over(under, pictures.heat_colours(values)))
  page.paste(bar, (_LEFT + 20, top + 2))
  _write(page, (_LEFT, top), '0', 17, _GREY)
  _write(page, (_LEFT + 26 + columns, top), '1', 17, _GREY)
  line = _LEFT + 20 + round(threshold * columns)
  ImageDraw.Draw(page).line((line, top, line, top + rows + 4), fill=_WHITE, width=2)
  _write(page, (_LEFT + 60 + columns, top), _ATTENTION, 17, _GREY)


def _columns(across: int) -> int:
  """Pixels of each of so many tiles side by side."""
  return (_WIDTH - (across - 1) * _GAP) // across


def _grid(tiles: Sequence[Image.Image], across: int) -> Image.Image:
  """Tiles in reading order."""
  height = max(tile.height for tile in tiles)
  width = _columns(across)
  rows = -(-len(tiles) // across)
  body = Image.new('RGB', (_WIDTH, rows * (height + _GAP)))
  for number, tile in enumerate(tiles):
    row, column = divmod(number, across)
    body.paste(tile, (column * (width + _GAP), row * (height + _GAP)))
  return body


def _sides_letters(tile: Image.Image, left: str, right: str) -> None:
  middle = tile.height // 2 - 10
  _write(tile, (8, middle), left, 20)
  _write(tile, (tile.width - 12 - 12 * len(right), middle), right, 20)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  # Comes with Matplotlib: the same everywhere, and with letters of many languages,
  # which warnings may quote.
  fonts = pathlib.Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
  return ImageFont.truetype(str(fonts / 'DejaVuSans.ttf'), size)


def _write(
  image: Image.Image,
  place: tuple[int, int],
  text: str,
  size: int,
  colour: tuple[int, int, int] = _WHITE,
) -> None:
  """White on a thin black rim, so that it can be read over anything."""
  ImageDraw.Draw(image).text(
    place, text, fill=colour, font=_font(size), stroke_width=1, stroke_fill=(0, 0, 0)
  )

"""report.html: one case on one self-contained page."""

import base64
import binascii
import dataclasses
import io
import os
import pathlib
import re

import numpy as np
from PIL import Image

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.reports import case_pictures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.storage import files

FILE_NAME = 'report.html'

_MOST_AFFECTED = 6
_APART_MM = 5.0  # Of thin slices, six neighbours would show one place six times.
_START_COLUMNS, _START_QUALITY = 720, 75  # Of the slice and plane shown first.
_THUMB_COLUMNS, _THUMB_QUALITY = 256, 60
_REGIONS = (
  ('right', 'Right lung'),
  ('left', 'Left lung'),
  ('apical', 'Apical third'),
  ('middle', 'Middle third'),
  ('basal', 'Basal third'),
)


@dataclasses.dataclass(frozen=True)
class StripBar:
  """One slice in the strip beside the coronal picture; lengths in its millimetres."""

  index: int
  probability: float
  score_cm3: float
  positive: bool
  top_mm: float
  height_mm: float


def write_report(
  path: str | os.PathLike,
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  *,
  demo_models: bool = False,
) -> None:
  """Writes a case's report: one file, no outside references, no patient identifiers.

  Args:
    path: the file to make or replace.
    result: the scored study.
    volume: its CT, on the same grid.
    demo_models: whether to say that the models are demonstration models.

  Raises:
    errors.OutputError: the file cannot be written.
    ValueError: result and volume are not of one grid, or not axial.
  """
  files.write_atomically(path, report_html(result, volume, demo_models=demo_models))


def report_html(
  result: results.CaseResult, volume: volume_lib.CTVolume, *, demo_models: bool = False
) -> bytes:
  """The page of `write_report`, as UTF-8."""
  maker = case_pictures.CasePictures(volume, result)
  ranked = _most_affected(result)
  first = ranked[0] if ranked else _widest_lung(result)
  start = case_pictures.viewed_slice(
    maker, result, first, _START_COLUMNS, _START_QUALITY
  )
  slices = case_pictures.viewed_slices(maker, result, first)
  coronal_row, holds_score = maker.coronal_row()
  regions = [
    (title, result.corona_score_by_region_cm3[name]) for name, title in _REGIONS
  ]
  return pages.render(
    FILE_NAME,
    result=result,
    maker=maker,
    demo_models=demo_models,
    start=start,
    coronal=maker.coronal_picture(coronal_row, _START_COLUMNS),
    coronal_holds_score=holds_score,
    strip=_strip(maker, result),
    slices=slices,
    most_cm3=float(result.corona_score_by_slice_cm3.max()) or 1.0,
    slice_data=[
      _viewer_entry(start if viewed.index == first else viewed, first, result.shape[0])
      for viewed in slices
    ],
    renderings=maker.renderings(),
    regions=regions,
    most_region_cm3=max(value for _, value in regions) or 1.0,
    thumbs=[
      case_pictures.viewed_slice(maker, result, index, _THUMB_COLUMNS, _THUMB_QUALITY)
      for index in ranked
    ],
    apart_mm=_APART_MM,
    excluded_lung_cm3=_excluded_lung_cm3(result),
    gradient=pictures.css_gradient(),
    window=pictures.WINDOW_HU,
    scan=pages.acquisition(result.acquisition),
    methods=pages.methods(result, demo_models),
    provenance=pages.provenance(result, pictures.WINDOW_HU, demo_models),
    coded=_coded(result),
  )


def _most_affected(result) -> list[int]:
  """Slices by their part of the score, largest first, none close to another."""
  by_slice = result.corona_score_by_slice_cm3
  apart = _APART_MM / result.spacing_mm[0]
  chosen: list[int] = []
  for index in np.argsort(-by_slice, kind='stable').tolist():
    if by_slice[index] <= 0 or len(chosen) == _MOST_AFFECTED:
      break
    if all(abs(index - other) >= apart for other in chosen):
      chosen.append(index)
  return chosen


def _excluded_lung_cm3(result) -> float:
  excluded = list(result.edits.excluded_slices) if result.edits else []
  return int(np.count_nonzero(result.lung_mask[excluded])) * (
    result.voxel_volume_mm3 / 1000
  )


def _widest_lung(result) -> int:
  return int(result.lung_mask.sum(axis=(1, 2)).argmax())


def _strip(maker, result) -> list[StripBar]:
  down = maker.coronal.down
  positive = set(result.positive_slices)
  return [
    StripBar(
      index,
      float(result.slice_probability[index]),
      float(result.corona_score_by_slice_cm3[index]),
      index in positive,
      down.place_mm(index) - 0.46 * down.step_mm,
      0.92 * down.step_mm,
    )
    for index in range(down.start, down.stop)
  ]


def _viewer_entry(viewed, first, slice_count) -> dict:
  return {
    'grey': viewed.picture.grey_uri,
    'heat': viewed.picture.heat_uri,
    'lungs': viewed.picture.lung_path,
    'counted': viewed.picture.counted_path,
    'title': pages.slice_title(viewed, slice_count),
    'caption': pages.slice_caption(viewed),
    'place': round(viewed.place_mm, 2),
    'start': viewed.index == first,
  }


def _coded(result) -> set[str]:
  """Rows of the provenance that are set as code: long identifiers."""
  return {'Study UID', 'Series UID'} | {
    f'Card of {model.name}, SHA-256' for model in result.models
  }


# The key pictures of a stored report, taken out of its page for a list of many cases:
# the CT itself need not be read again.

_NUMBER, _DATA = r'([\d.]+)', r'data:image/(?:webp|png);base64,([A-Za-z0-9+/=]+)'
_CORONAL = re.compile(
  r'<div class="picture" id="coronal">\s*(<svg .*?</svg>)', re.DOTALL
)
_SIZE = re.compile(rf'viewBox="0 0 {_NUMBER} {_NUMBER}"')
_GREY = re.compile(rf'<image class="grey" href="{_DATA}"')
_HEAT = re.compile(rf'<image class="map" href="({_DATA})"')
_FRONT = re.compile(rf'<img src="{_DATA}" width="\d+" height="\d+" alt="Lungs with the')
_OUTLINE = r'<path class="{}" transform="scale\(.1\)" d="([-Ml z\d]*)"'
_COUNTED, _LUNGS = (re.compile(_OUTLINE.format(name)) for name in ('counted', 'lungs'))
_SMALL_COLUMNS, _SMALL_QUALITY = 300, 50


@dataclasses.dataclass(frozen=True)
class KeyPictures:
  """The coronal picture of a report, made smaller, and its rendered lungs.

  Attributes:
    coronal: lengths in its millimetres.
    size_mm: (height, width) of it.
    front_uri: the lungs with the map from the front, as a data URI.
  """

  coronal: case_pictures.Picture
  size_mm: tuple[float, float]
  front_uri: str


def read_key_pictures(path: str | os.PathLike) -> KeyPictures | None:
  """Takes the key pictures out of a report.

  Nothing but pictures and outlines is taken: no other text of the page.

  Args:
    path: the report that `write_report` wrote.

  Returns:
    The pictures; None where there is no report, or none of ours.
  """
  try:
    page = pathlib.Path(path).read_text('utf-8')
  except (OSError, UnicodeDecodeError):
    return None
  coronal, front = _CORONAL.search(page), _FRONT.search(page)
  if not (coronal and front):
    return None
  svg = coronal[1]
  size, grey = _SIZE.search(svg), _GREY.search(svg)
  if not (size and grey):
    return None
  heat, counted, lungs = (kind.search(svg) for kind in (_HEAT, _COUNTED, _LUNGS))
  try:
    return KeyPictures(
      case_pictures.Picture(
        _smaller(grey[1], 'L'),
        heat[1] if heat else '',
        lungs[1] if lungs else '',
        counted[1] if counted else '',
      ),
      (float(size[2]), float(size[1])),
      _smaller(front[1], 'RGBA'),
    )
  except (OSError, ValueError, Image.DecompressionBombError):
    return None


def _smaller(encoded: str, mode: str) -> str:
  """Data URI of a picture with at most _SMALL_COLUMNS columns."""
  try:
    data = base64.b64decode(encoded, validate=True)
  except binascii.Error as error:
    raise ValueError(str(error)) from None
  image = Image.open(io.BytesIO(data)).convert(mode)
  image.thumbnail((_SMALL_COLUMNS, 2 * _SMALL_COLUMNS))
  picture = np.asarray(image)
  if mode == 'RGBA':
    return pictures.rgba_uri(picture)
  return pictures.grey_uri(picture, picture.shape[:2], _SMALL_QUALITY)

"""report.html: one case on one self-contained page."""

import base64
import binascii
from collections.abc import Iterator
import dataclasses
import io
import os
import pathlib
import re
import urllib.parse

import numpy as np
from PIL import Image

from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.reports import case_pictures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.storage import files

FILE_NAME = 'report.html'

_START_COLUMNS, _START_QUALITY = 720, 75  # Of the slice and planes shown first.
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
  viewer_name: str | None = None,
) -> None:
  """Writes a case's report: one file, no outside references, no patient identifiers.

  Args:
    path: the file to make or replace.
    result: the scored study.
    volume: its CT, on the same grid.
    demo_models: whether to say that the models are demonstration models.
    viewer_name: of the viewer's page in the same folder, which the report then links
      to, whole and at the most affected slices (NAME#slice=INDEX); None: there is none.

  Raises:
    errors.OutputError: the file cannot be written.
    ValueError: result and volume are not of one grid, or not axial.
  """
  page = report_html(result, volume, demo_models=demo_models, viewer_name=viewer_name)
  files.write_atomically(path, page)


def report_html(
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  *,
  demo_models: bool = False,
  viewer_name: str | None = None,
) -> bytes:
  """The page of `write_report`, as UTF-8."""
  maker = case_pictures.CasePictures(volume, result)
  first = maker.place.index
  start = case_pictures.viewed_slice(
    maker, result, first, _START_COLUMNS, _START_QUALITY
  )
  slices = case_pictures.viewed_slices(maker, result, first)
  regions = [
    (title, result.corona_score_by_region_cm3[name]) for name, title in _REGIONS
  ]
  return pages.render(
    FILE_NAME,
    result=result,
    maker=maker,
    demo_models=demo_models,
    start=start,
    coronal=maker.coronal_picture(_START_COLUMNS),
    sagittal=maker.sagittal_picture(_START_COLUMNS),
    viewer=urllib.parse.quote(viewer_name) if viewer_name else '',
    strip=_strip(maker, result),
    slices=slices,
    most_cm3=float(result.corona_score_by_slice_cm3.max()) or 1.0,
    slice_data=[
      _viewer_entry(start if viewed.index == first else viewed, first, result.shape[0])
      for viewed in slices
    ],
    renderings=maker.renderings(),
    regions=regions,
    measures=measures(result),
    most_region_cm3=max(value for _, value in regions) or 1.0,
    thumbs=[
      case_pictures.viewed_slice(maker, result, index, _THUMB_COLUMNS, _THUMB_QUALITY)
      for index in case_pictures.most_affected_slices(result)
    ],
    apart_mm=case_pictures.APART_MM,
    excluded_lung_cm3=_excluded_lung_cm3(result),
    gradient=pictures.css_gradient(),
    window=pictures.WINDOW_HU,
    scan=pages.acquisition(result.acquisition),
    methods=pages.methods(result, demo_models),
    provenance=pages.provenance(result, pictures.WINDOW_HU, demo_models),
    coded=_coded(result),
  )


def _excluded_lung_cm3(result) -> float:
  excluded = list(result.edits.excluded_slices) if result.edits else []
  return int(np.count_nonzero(result.lung_mask[excluded])) * (
    result.voxel_volume_mm3 / 1000
  )


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


# Densities and zone grades in one bar, one grid and a few lines.


@dataclasses.dataclass(frozen=True)
class DensityBin:
  """One part of the stacked bar: its title, its HU and its share of the lungs."""

  title: str
  hu: str
  share: float


@dataclasses.dataclass(frozen=True)
class GradedZone:
  """One place of the grid of zones.

  Attributes:
    title: side and third.
    grade: the network's, 0 to 4; None without lung.
    share: involved share of its lung, in [0, 1]; None without lung.
    by_density: the grade by dense voxels; None where it was not measured.
  """

  title: str
  grade: int | None
  share: float | None
  by_density: int | None


@dataclasses.dataclass(frozen=True)
class Measures:
  """What the page shows of the numbers beside the score.

  Attributes:
    bins: of the COVID scheme over both lungs, from the lowest density up.
    zones: rows from apical to basal, the patient's right lung first.
    lines: in words.
  """

  bins: tuple[DensityBin, ...]
  zones: tuple[tuple[GradedZone, ...], ...]
  lines: tuple[str, ...]


def measures(result: results.CaseResult) -> Measures | None:
  """Densities, zones and regions as the page shows them; None of earlier results."""
  found = Measures(_bins(result), _zones(result), tuple(_measure_lines(result)))
  return found if found.bins or found.zones or found.lines else None


def _bins(result) -> tuple[DensityBin, ...]:
  if result.densities is None:
    return ()
  lungs, scheme = result.densities.regions['lungs'], result.densities.schemes.covid
  edges = [pages.hu(edge) for edge in scheme.edges_hu]
  spans = (
    f'below {edges[0]}',
    *(f'{low} to {high}' for low, high in zip(edges, edges[1:])),
    f'from {edges[-1]}',
  )
  return tuple(
    DensityBin(
      name.replace('_', ' ').capitalize() if name in scheme.bins else '',
      span,
      lungs.share(lungs.bins_cm3['covid'][name]) or 0.0,
    )
    for name, span in zip(scheme.all_bins, spans)
  )


def _zones(result) -> tuple[tuple[GradedZone, ...], ...]:
  score, by_density = result.zone_score, result.zone_score_by_density
  if score is None:
    return ()

  def zone(name: str) -> GradedZone:
    side, level = name.split('_')
    return GradedZone(
      f'{side.capitalize()} lung, {level} third',
      score.zones[name],
      score.shares[name],
      by_density.zones[name] if by_density else None,
    )

  sides = (lung_measures.ZONES[:3], lung_measures.ZONES[3:])
  return tuple(tuple(map(zone, row)) for row in zip(*sides))


def _measure_lines(result) -> Iterator[str]:
  densities, score = result.densities, result.zone_score
  if densities and densities.regions['lungs'].mean_hu is not None:
    lungs, below = densities.regions['lungs'], densities.schemes.low_attenuation_hu
    low = lungs.share(lungs.low_attenuation_cm3)
    yield (
      f'Mean density of the lungs {pages.hu(lungs.mean_hu)} HU; of low attenuation '
      f'(below {pages.hu(below)} HU) {pages.percent(low)} %.'
    )
  if score:
    beside = result.zone_score_by_density
    yield (
      f"Zone score {score.total} of 24 by the network's map, not by a radiologist"
      + (f'; {beside.total} of 24 by density.' if beside else '.')
    )
  if line := _regions_line(result):
    yield line


def _regions_line(result) -> str:
  """The regions of a label map in one line: their score and the most involved one."""
  if result.label_regions is None:
    return ''
  shares = {
    name: region.involved_lung_fraction
    for name, region in result.label_regions.regions.items()
    if region.involved_lung_fraction is not None
  }
  lobes = result.lobe_score
  said = f'Lobe score {lobes.total} of 25 by the same map; ' if lobes else ''
  said += f'{len(result.label_regions.regions)} regions of a label map'
  if not any(shares.values()):
    return f'{said}, none involved.'
  most = max(shares, key=shares.__getitem__)
  return (
    f'{said}, {most.replace("_", " ")} the most involved ({pages.percent(shares[most])}'
    ' % of its lung).'
  )


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

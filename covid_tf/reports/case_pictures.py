"""The pictures of one case as data: key slices, planes, lungs, slices to scroll."""

from collections.abc import Sequence
from concurrent import futures
import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.reports import pictures
from covid_tf.reports import rendering

# The pictures of one case: slices, coronal plane and rendered lungs, as data.

_MARGIN_MM = 20  # Chest wall shown around the lung box.
_COVERED_MARGIN_MM = 30  # Shown above and below what is lung or positive.
_HEAT_COLUMNS = 72  # Enough: the fine scale has 28 columns.
VIEWS = (  # Title, degrees turned, letters at the left and right of the picture.
  ('From the front', 0, 'R', 'L'),
  ('From behind', 180, 'L', 'R'),  # Where most of COVID-19 lies.
  ("From the patient's right", 90, 'P', 'A'),
  ("From the patient's left", -90, 'A', 'P'),
)


@dataclasses.dataclass(frozen=True)
class Picture:
  """One CT plane with what lies over it; lengths in millimetres of the picture.

  Attributes:
    grey_uri: the CT through the lung window, as a data URI.
    heat_uri: the map in colour, '' where the plane has none.
    lung_path: SVG path of the lungs' outline, in tenths of a millimetre.
    counted_path: the same around the voxels that count in the score.
  """

  grey_uri: str
  heat_uri: str
  lung_path: str
  counted_path: str


@dataclasses.dataclass(frozen=True)
class Rendering:
  """The rendered lungs from one side: title, data URI, size in pixels, letters."""

  title: str
  uri: str
  rows: int
  columns: int
  left: str
  right: str


class CasePictures:
  """Makes the pictures of a case.

  Attributes:
    axial: the view of the slices.
    coronal, sagittal: the views of the planes along the body, cropped to the covered
      slices.
    place: where the planes of a report meet.
    heat_place: (x, y, width, height) of a slice's map in its picture, in mm.
  """

  def __init__(self, volume: volume_lib.CTVolume, result: results.CaseResult):
    """Chooses what is shown.

    Args:
      volume: the CT; its slices must be nearest to axial.
      result: its score, on the same grid.

    Raises:
      ValueError: the two have different grids, or the slices are not axial.
    """
    if volume.shape != result.shape or not np.allclose(volume.affine, result.affine):
      raise ValueError(
        'volume and result must share one grid, found '
        f'{volume.shape} and {result.shape}.'
      )
    self._volume, self._result = volume, result
    shown = _shown(result)
    self.axial = pictures.plane_view(volume.affine, volume.shape, 'axial', shown)
    self.coronal = pictures.plane_view(volume.affine, volume.shape, 'coronal', shown)
    self.sagittal = pictures.plane_view(volume.affine, volume.shape, 'sagittal', shown)
    if self.axial.fixed_axis != 0:
      raise ValueError('slices nearest to axial are required.')
    box = result.lung_box
    self._map_view = pictures.plane_view(
      volume.affine, volume.shape, 'axial', (slice(None), box.rows, box.columns)
    )
    self.heat_place = self._heat_place()
    self._map_number = {
      index: number for number, index in enumerate(result.localization.slices)
    }
    self.place = shown_place(result)

  def slice_picture(self, index: int, columns: int, quality: int = 70) -> Picture:
    """One slice, at most `columns` pixels wide."""
    view, result = self.axial, self._result
    number = self._map_number.get(index)
    heat = counted = ''
    if number is not None:
      plane = np.zeros(result.shape[1:], np.float32)
      plane[result.lung_box.rows, result.lung_box.columns] = result.localization.maps[
        number
      ]
      heat = self._heat(self._map_view, plane, _HEAT_COLUMNS)
      counted = self._outline(view, plane > result.thresholds.map)
    return Picture(
      pictures.grey_uri(
        pictures.lung_window(view.picture(self._volume.hu[index])),
        _size(view, columns),
        quality,
      ),
      heat,
      self._outline(view, result.lung_mask[index]),
      counted,
    )

  def coronal_picture(self, columns: int, quality: int = 75) -> Picture:
    """The coronal plane at the place, its map spread over the whole picture."""
    return self._upright(self.coronal, columns, quality)

  def sagittal_picture(self, columns: int, quality: int = 75) -> Picture:
    """The sagittal plane at the place, its map spread over the whole picture."""
    return self._upright(self.sagittal, columns, quality)

  def _upright(self, view, columns, quality) -> Picture:
    result, axis = self._result, view.fixed_axis
    box, at = result.lung_box, (self.place.row, self.place.column)[axis - 1]
    start, stop = ((box.row0, box.row1), (box.column0, box.column1))[axis - 1]
    other = (box.columns, box.rows)[axis - 1]
    plane = np.zeros(np.delete(result.shape, axis), np.float32)
    if start <= at < stop:
      for index, map_ in zip(result.localization.slices, result.localization.maps):
        plane[index, other] = np.take(map_, at - start, axis - 1)
    grey = pictures.lung_window(view.picture(np.take(self._volume.hu, at, axis)))
    return Picture(
      pictures.grey_uri(grey, _size(view, columns), quality),
      self._heat(view, plane, 2 * _HEAT_COLUMNS) if plane.any() else '',
      self._outline(view, np.take(result.lung_mask, at, axis)),
      self._outline(view, plane > result.thresholds.map),
    )

  def renderings(self) -> tuple[Rendering, ...]:
    """The map in the lungs, from four sides; the first is the front."""
    scene = rendering.lung_scene(
      self._result.lung_mask, self._result.localization, self._result.affine
    )
    pictures_ = [rendering.render(scene, turn) for _, turn, _, _ in VIEWS]
    return tuple(
      Rendering(
        title,
        pictures.rgba_uri(picture),
        picture.shape[0],
        picture.shape[1],
        left,
        right,
      )
      for (title, _, left, right), picture in zip(VIEWS, pictures_)
    )

  def position_mm(self, index: int) -> float:
    """Place of a slice along the normal to the head, in LPS millimetres."""
    rows, columns = self._volume.affine[:3, 1], self._volume.affine[:3, 2]
    normal = np.cross(columns, rows)
    normal *= np.sign(normal @ self._volume.affine[:3, 0])  # As the slices run.
    centre = self._volume.index_to_lps_mm((index, 0, 0))
    return float(centre @ normal / np.linalg.norm(normal))

  def _heat_place(self):
    """Where the lung box lies in the axial picture."""
    corner = []
    for shown, boxed in (
      (self.axial.across, self._map_view.across),
      (self.axial.down, self._map_view.down),
    ):
      first = boxed.stop - 1 if boxed.reversed else boxed.start
      corner.append(shown.place_mm(first) - 0.5 * shown.step_mm)
    height, width = self._map_view.size_mm
    return (*corner, width, height)

  @staticmethod
  def _heat(view, plane, columns) -> str:
    return pictures.heat_uri(view.picture(plane), view.step_mm, columns)

  @staticmethod
  def _outline(view, mask) -> str:
    return pictures.outline(view.picture(mask), view.step_mm)


def _shown(result: results.CaseResult) -> tuple[slice, slice, slice]:
  """Lung box and covered slices, with a margin, cropped to the volume."""
  covered = np.asarray(result.lung_mask.any(axis=(1, 2)))
  covered[list(result.positive_slices)] = True
  slices = np.flatnonzero(covered)
  box = result.lung_box
  ends = ((slices[0], slices[-1] + 1), (box.row0, box.row1), (box.column0, box.column1))
  margins_mm = (_COVERED_MARGIN_MM, _MARGIN_MM, _MARGIN_MM)
  shown: list[slice] = []
  for (start, stop), margin, step, length in zip(
    ends, margins_mm, result.spacing_mm, result.shape
  ):
    more = int(np.ceil(margin / step))
    shown.append(slice(max(0, int(start) - more), min(length, int(stop) + more)))
  return shown[0], shown[1], shown[2]


def _size(view, columns) -> tuple[int, int]:
  """(rows, columns) of an image whose pixels are square on the page."""
  height, width = view.size_mm
  return max(1, round(columns * height / width)), columns


# Where the pictures go through: a report's first picture shows what was found.

_MOST_AFFECTED = 6
APART_MM = 5.0  # Of thin slices, six neighbours would show one place six times.
_AROUND_MM = 10.0  # Standard deviation: the map's fine scale has values this far apart.


@dataclasses.dataclass(frozen=True)
class Place:
  """A voxel, and why the pictures go through it.

  Attributes:
    index, row, column: of the voxel.
    shows: 'score': it counts, and most of the score is around it; 'map': nothing
      counts, it has the highest map value; 'lungs': no slice is positive, the planes
      are those with most lung.
  """

  index: int
  row: int
  column: int
  shows: str


def most_affected_slices(result: results.CaseResult) -> list[int]:
  """Slices by their part of the score, largest first, none closer than APART_MM."""
  by_slice = result.corona_score_by_slice_cm3
  apart = APART_MM / result.spacing_mm[0]
  chosen: list[int] = []
  for index in np.argsort(-by_slice, kind='stable').tolist():
    if by_slice[index] <= 0 or len(chosen) == _MOST_AFFECTED:
      break
    if all(abs(index - other) >= apart for other in chosen):
      chosen.append(index)
  return chosen


def shown_place(result: results.CaseResult) -> Place:
  """The voxel where the axial, coronal and sagittal picture of a report meet.

  On the slice with most of the score: of its voxels that count, those in the lungs
  before others, the one with most of the score within about 10 mm.
  """
  map_, box = result.localization, result.lung_box
  if most := most_affected_slices(result):
    index = most[0]
    counts = map_.slice_map(index) > result.thresholds.map
    inside = counts & (result.lung_mask[index] > 0)
    around = _score_around(result, index)
    if counts.any():
      around[~(inside if inside.any() else counts)[box.rows, box.columns]] = -1
    row, column = np.unravel_index(around.argmax(), around.shape)
    return Place(index, box.row0 + int(row), box.column0 + int(column), 'score')
  peaks = [float(plane.max()) for plane in map_.maps]
  if any(peaks):
    number = int(np.argmax(peaks))
    row, column = np.unravel_index(map_.maps[number].argmax(), box.shape)
    index = map_.slices[number]
    return Place(index, box.row0 + int(row), box.column0 + int(column), 'map')
  lung = result.lung_mask
  planes = (lung.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
  widest = [int(areas.argmax()) for areas in planes]
  return Place(widest[0], widest[1], widest[2], 'lungs')


def _score_around(result, index) -> np.ndarray:
  """float32 [box rows, box columns]: the counted map, smoothed in 3D, on a slice."""
  slice_mm, *in_plane_mm = result.spacing_mm
  plane = np.zeros(result.lung_box.shape, np.float32)
  for number, other in enumerate(result.localization.slices):
    away = (other - index) * slice_mm / _AROUND_MM
    if abs(away) <= 3:
      map_ = result.localization.maps[number]
      plane += np.exp(-0.5 * away**2) * map_ * (map_ > result.thresholds.map)
  sigma = [_AROUND_MM / step for step in in_plane_mm]
  return ndimage.gaussian_filter(plane, sigma, mode='constant', truncate=3.0)


# The slices of a case for scrolling, within a budget of bytes.

_BUDGET_BYTES = 1_650_000  # Of all grey images, as text; a report stays below 3 MB.
_MOST_SLICES = 320  # More are thinned out evenly; the strip still shows every one.
_COLUMNS = (512, 160)  # Widest and narrowest image.
_SAMPLES = 5
_QUALITY = 55


@dataclasses.dataclass(frozen=True)
class ViewedSlice:
  """One slice of the viewer.

  Attributes:
    index: of the slice in the volume.
    picture: what is shown.
    probability: COVID probability.
    score_cm3: its part of the Corona score.
    position_mm: along the slice normal, towards the head.
    place_mm: of its centre from the top of the coronal picture.
  """

  index: int
  picture: Picture
  probability: float
  score_cm3: float
  position_mm: float
  place_mm: float


def viewed_slices(
  maker: CasePictures, result: results.CaseResult, first: int
) -> tuple[ViewedSlice, ...]:
  """The slices to scroll through, from the head down.

  Args:
    maker: makes the pictures.
    result: the scored study.
    first: a slice that must be among them: the one shown at the start.
  """
  indices = _chosen(maker.coronal.down, first)
  columns = _affordable_columns(maker, indices)
  # Threads: compression and resizing, most of the work, leave the interpreter free.
  with futures.ThreadPoolExecutor() as pool:
    return tuple(
      pool.map(
        lambda index: viewed_slice(maker, result, index, columns, _QUALITY), indices
      )
    )


def viewed_slice(
  maker: CasePictures,
  result: results.CaseResult,
  index: int,
  columns: int,
  quality: int,
) -> ViewedSlice:
  """One slice with its numbers."""
  return ViewedSlice(
    index,
    maker.slice_picture(index, columns, quality),
    float(result.slice_probability[index]),
    float(result.corona_score_by_slice_cm3[index]),
    maker.position_mm(index),
    maker.coronal.down.place_mm(index),
  )


def _chosen(down, first) -> Sequence[int]:
  count = down.stop - down.start
  step = -(-count // _MOST_SLICES)
  start = down.start + (first - down.start) % step
  indices = range(start, down.stop, step)
  return indices[::-1] if down.reversed else indices


def _affordable_columns(maker, indices) -> int:
  """The image width at which all slices fit the budget, judged by a few of them."""
  widest, narrowest = _COLUMNS
  sampled = np.linspace(0, len(indices) - 1, _SAMPLES).astype(int)
  sizes = [
    len(maker.slice_picture(indices[number], widest, _QUALITY).grey_uri)
    for number in sampled
  ]
  # Bytes grow a little slower than the area: judged so, the budget is kept.
  share = _BUDGET_BYTES / (float(np.mean(sizes)) * len(indices))
  columns = widest * min(1.0, share) ** 0.5
  return int(np.clip(columns // 16 * 16, narrowest, widest))

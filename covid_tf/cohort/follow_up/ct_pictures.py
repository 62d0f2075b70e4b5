"""The CT of all studies at the same places in the lungs, those of the first study.

Later studies are drawn on planes of the first one, where the affine of their lungs puts
them; the first keeps its own shape (docs/adr/0171).
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf import volume as volume_lib
from covid_tf.cohort.follow_up import alignment as alignment_lib
from covid_tf.cohort.follow_up import course
from covid_tf.cohort.follow_up import ct_files
from covid_tf.cohort.follow_up import lung_surface
from covid_tf.reports import case_pictures
from covid_tf.reports import pictures
from covid_tf.storage import maps as maps_lib

# Shares of the lungs' height in the first study, from the head down.
LEVELS = (0.8, 0.6, 0.4, 0.2)
_MARGIN_MM = 15.0  # Shown around the lungs.
_PIXEL_MM = 1.0
# A page stays below 10 MB: a picture's pixel of a noisy CT takes a third of a byte.
_BUDGET_PIXELS = 20_000_000
_QUALITY, _HEAT_COLUMNS = 60, 72
_X, _Y, _Z = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Plane:
  """A plane along the patient's axes in the first study.

  Attributes:
    title: which place it is.
    view: how it lies on the page.
    points_mm: float64 [first other axis, second other axis, 3], LPS of the first study.
  """

  title: str
  view: pictures.PlaneView
  points_mm: np.ndarray


@dataclasses.dataclass(frozen=True)
class StudyPictures:
  """One study on all planes.

  Attributes:
    pictures: one a plane.
    captions: where in the study a plane lies.
    alignment: to the first study; None for that one.
  """

  pictures: tuple[case_pictures.Picture, ...]
  captions: tuple[str, ...]
  alignment: alignment_lib.Alignment | None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """All studies on the planes of the first one.

  Attributes:
    planes: from the head down, then the coronal one.
    studies: in the order of the follow-up.
    warnings: of how their CT was found.
  """

  planes: tuple[Plane, ...]
  studies: tuple[StudyPictures, ...]
  warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Known:
  """What is known of a study from its map and mask: its lungs, and its worst place."""

  surface: lung_surface.LungSurface
  worst_mm: np.ndarray | None
  worst_cm3_per_mm: float


def compare(follow_up: course.FollowUp, studies: ct_files.Studies) -> Comparison:
  """Draws the CT of all studies of a patient; one CT at a time is in memory.

  Args:
    follow_up: the studies, earliest first.
    studies: where their CT lies.

  Raises:
    errors.UsageError: a study is not there, or cannot be aligned; names the result's
      folder and what was found.
    errors.CTReadError: a study cannot be read.
  """
  for point in follow_up.points:
    studies.require(point)
  known = [_known(point) for point in follow_up.points]
  aligned = [alignment_lib.IDENTITY] + [
    _aligned(known[0], other, follow_up.points[0], point)
    for other, point in zip(known[1:], follow_up.points[1:])
  ]
  planes = _planes(known, aligned)
  drawn, warnings = [], []
  for number, point in enumerate(follow_up.points):
    scored = studies.read(point)
    warnings += [scored.warning] if scored.warning else []
    drawn.append(_study(scored, point, planes, aligned[number], is_first=not number))
  return Comparison(planes, tuple(drawn), tuple(warnings))


def _known(point: course.TimePoint) -> _Known:
  mask, localization, affine = maps_lib.read_maps(point.folder, point.result)
  try:
    surface = lung_surface.find_surface(mask, affine)
  except lung_surface.NotAlignedError as error:
    raise _refused(point, error) from None
  score = np.asarray(point.result.corona_score_by_slice_cm3)
  if not score.any():
    return _Known(surface, None, 0.0)
  index = int(score.argmax())
  counted = localization.slice_map(index) > point.result.thresholds.map
  place = (index, *np.argwhere(counted).mean(axis=0))
  return _Known(
    surface,
    affine[:3, :3] @ place + affine[:3, 3],
    float(score[index]) / point.result.spacing_mm[0],
  )


def _aligned(
  reference: _Known, other: _Known, first: course.TimePoint, point: course.TimePoint
) -> alignment_lib.Alignment:
  try:
    return alignment_lib.align(reference.surface, other.surface)
  except lung_surface.NotAlignedError as error:
    raise _refused(point, error, f' to the lungs of {first.folder}') from None


def _refused(
  point: course.TimePoint, error: Exception, to: str = ''
) -> lung_surface.NotAlignedError:
  return lung_surface.NotAlignedError(
    f'{point.folder}: its lungs cannot be aligned{to}: {error}; look at both lung '
    'masks, or leave --studies out for the maps alone.'
  )


def _planes(
  known: Sequence[_Known], aligned: Sequence[alignment_lib.Alignment]
) -> tuple[Plane, ...]:
  """Levels of the first study, and two planes through the most affected place."""
  points = known[0].surface.points_mm
  low, high = points.min(axis=0), points.max(axis=0)
  titles = {
    float(low[_Z] + height * (high[_Z] - low[_Z])): (
      f'{100 * height:.0f} % of lung height'
    )
    for height in LEVELS
  }
  worst = max(range(len(known)), key=lambda number: known[number].worst_cm3_per_mm)
  place = (low + high) / 2
  found = known[worst].worst_mm
  coronal = 'Coronal, the middle of the lungs'
  if found is not None:
    place = aligned[worst].to_first(found)
    titles[float(place[_Z])] = f'Most affected, of study {worst + 1}'
    coronal = f'Coronal, most affected of study {worst + 1}'
  shared = 1 + len(titles)
  extent_mm = high - low + 2 * _MARGIN_MM
  pixels = shared * len(known) * float(extent_mm[_X] * extent_mm[_Y])
  step = _PIXEL_MM * max(1.0, pixels / _BUDGET_PIXELS) ** 0.5
  frame = _Frame(low - _MARGIN_MM, extent_mm, step)
  return (
    *(frame.axial(titles[z], z) for z in sorted(titles, reverse=True)),
    frame.coronal(coronal, float(place[_Y])),
  )


class _Frame:
  """A block around the lungs of the first study, along the patient's axes."""

  def __init__(self, start_mm: np.ndarray, extent_mm: np.ndarray, step_mm: float):
    counts = np.ceil(extent_mm / step_mm).astype(int).tolist()
    self._axes_mm = [
      start + step_mm * np.arange(count) for start, count in zip(start_mm, counts)
    ]
    affine = np.eye(4)
    affine[:3, :3] = step_mm * np.eye(3)[:, ::-1]  # Slices to the head, and so on.
    x, y, z = counts
    self._views = {
      name: pictures.plane_view(affine, (z, y, x), name)
      for name in ('axial', 'coronal')
    }

  def axial(self, title: str, z_mm: float) -> Plane:
    x, y, _ = self._axes_mm
    y, x = np.meshgrid(y, x, indexing='ij')
    points = np.stack((x, y, np.full_like(x, z_mm)), axis=-1)
    return Plane(title, self._views['axial'], points)

  def coronal(self, title: str, y_mm: float) -> Plane:
    x, _, z = self._axes_mm
    z, x = np.meshgrid(z, x, indexing='ij')
    points = np.stack((x, np.full_like(x, y_mm), z), axis=-1)
    return Plane(title, self._views['coronal'], points)


def _study(
  scored: ct_files.ScoredCT,
  point: course.TimePoint,
  planes: Sequence[Plane],
  aligned: alignment_lib.Alignment,
  *,
  is_first: bool,
) -> StudyPictures:
  drawn = [
    _drawn(scored, plane, aligned, point.result.thresholds.map) for plane in planes
  ]
  return StudyPictures(
    tuple(picture for picture, _ in drawn),
    tuple(caption for _, caption in drawn),
    None if is_first else aligned,
  )


def _drawn(
  scored: ct_files.ScoredCT,
  plane: Plane,
  aligned: alignment_lib.Alignment,
  map_threshold: float,
) -> tuple[case_pictures.Picture, str]:
  """One plane of a study, and where in the study it lies."""
  inverse = np.linalg.inv(scored.ct.affine)
  places = aligned.to_other(plane.points_mm) @ inverse[:3, :3].T + inverse[:3, 3]
  index = np.moveaxis(places, -1, 0)
  shape = np.reshape(scored.ct.shape, (3, 1, 1))
  imaged = ((index > -0.5) & (index < shape - 0.5)).all(axis=0)
  hu = _linear(scored.ct.hu, index)
  hu[~imaged] = volume_lib.AIR_HU
  lungs = (_linear(scored.lung_mask, index) > 0.5) & imaged
  heat = np.where(imaged, _nearest(scored, index), np.float32(0))
  view = plane.view
  grey, shown = view.picture(hu), view.picture(heat)
  picture = case_pictures.Picture(
    pictures.grey_uri(pictures.lung_window(grey), grey.shape, _QUALITY),
    pictures.heat_uri(shown, view.step_mm, _HEAT_COLUMNS) if shown.any() else '',
    pictures.outline(view.picture(lungs), view.step_mm),
    pictures.outline(shown > map_threshold, view.step_mm),
  )
  return picture, _caption(view, index, lungs, imaged)


def _linear(block: np.ndarray, index: np.ndarray) -> np.ndarray:
  return ndimage.map_coordinates(
    block, index, output=np.float32, order=1, mode='nearest'
  )


def _nearest(scored: ct_files.ScoredCT, index: np.ndarray) -> np.ndarray:
  """Map values of the nearest voxels: none is made up between two."""
  map_, box = scored.localization, scored.localization.box
  if not map_.slices:
    return np.zeros(index.shape[1:], np.float32)
  numbers = np.full(map_.shape[0], -1)
  numbers[list(map_.slices)] = np.arange(len(map_.slices))
  slices, rows, columns = (
    np.clip(np.rint(axis).astype(int), 0, size - 1)
    for axis, size in zip(index, map_.shape)
  )
  inside = (
    (numbers[slices] >= 0)
    & (rows >= box.row0)
    & (rows < box.row1)
    & (columns >= box.column0)
    & (columns < box.column1)
  )
  heat = np.zeros(inside.shape, np.float32)
  heat[inside] = np.asarray(map_.maps)[
    numbers[slices[inside]], rows[inside] - box.row0, columns[inside] - box.column0
  ]
  return heat


def _caption(view, index, lungs, imaged) -> str:
  if view.name != 'axial':
    words = ''
  elif not lungs.any():
    words = 'no lung here'
  else:
    first, last = (int(round(end(index[0][lungs]))) for end in (np.min, np.max))
    words = f'slice {first}' if first == last else f'slices {first} to {last}'
  if imaged.mean() < 0.98:
    words = ', '.join(filter(None, (words, 'partly not imaged')))
  return words

"""All DICOM objects of a scored study, written into the folder of its result.

highdicom is imported when the first object is made (extra `clinic`).
"""

from collections.abc import Sequence
import dataclasses
import importlib.util
import itertools
import logging
import os
import pathlib
from typing import Any, Literal

import numpy as np
import pydicom

from covid_tf import errors
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.storage import files
from covid_tf.storage.dicom import source as source_lib

_log = logging.getLogger(__name__)

FOLDER = 'dicom'  # Of a result: where all objects are.
# What may be there of an earlier result; other files are not ours.
FILE_NAMES = ('segmentation.dcm', 'parametric_map.dcm', 'report.dcm', 'picture_*.dcm')

# How values of the map are stored. uint16: in steps of 1/65535, so 7.6e-6 off at most,
# packed. float32: as they are, of 1 MB a slice.
MapForm = Literal['uint16', 'float32']
MAP_FORMS: tuple[MapForm, ...] = ('uint16', 'float32')
_PIXELS = ('PixelData', 'FloatPixelData')


@dataclasses.dataclass(frozen=True)
class Options:
  """Which objects are written.

  Attributes:
    map_form: how values of the parametric map are stored.
    pictures: whether key pictures of the report are written as secondary captures.
  """

  map_form: MapForm = 'uint16'
  pictures: bool = False

  def __post_init__(self) -> None:
    if self.map_form not in MAP_FORMS:
      raise errors.UsageError(
        f'DICOM map: {" or ".join(MAP_FORMS)} is required, found {self.map_form!r}.'
      )


@dataclasses.dataclass(frozen=True)
class KeyPicture:
  """A picture that becomes a secondary capture; it shows nothing that names a patient.

  Attributes:
    pixels: uint8 [row, column, 3], RGB.
    title: a few words for the Series Description.
    description: what it shows and how it was made.
    slices: of the CT, that it shows; empty: made of all of them.
    orientation: directions of the patient (such as 'L', 'P') in which its rows and
      columns run; None: it has none, or several.
  """

  pixels: np.ndarray
  title: str
  description: str
  slices: tuple[int, ...] = ()
  orientation: tuple[str, str] | None = None


def require_extra() -> None:
  """Raises UsageError where what makes objects is not installed."""
  if importlib.util.find_spec('highdicom') is None:
    raise errors.UsageError(
      "DICOM objects: the extra 'clinic' is required, found no highdicom; "
      f'{errors.how_to_install("clinic")}.'
    )


def read_source_of(
  study: str | os.PathLike[str],
  volume: volume_lib.CTVolume,
  *,
  phase: str | int | None = None,
) -> source_lib.SourceSeries:
  """The source series of a volume that was read from the same files.

  Args:
    study: what the volume was read from.
    volume: the CT.
    phase: as it was read.

  Raises:
    errors.CTReadError: no objects can be made for it; says why.
    errors.UsageError: the extra is missing, or the files are others than before.
  """
  require_extra()
  if not volume.series_uid:
    raise errors.UsageError(
      f'{study}: a DICOM series is required for DICOM objects, found a CT without '
      'series UID; score it without --dicom, then give the series that it was '
      'converted from: covid-tf dicom RESULT --study SERIES.'
    )
  source = source_lib.read_source(study, volume.series_uid, phase=phase)
  require_source_of(volume, source, os.fspath(study))
  for note in source.notes:
    _log.warning('warning: %s: %s.', study, note)
  return source


def require_source_of(
  volume: volume_lib.CTVolume, source: source_lib.SourceSeries, name: str
) -> None:
  """Raises UsageError unless a volume is of the series, and on its grid.

  Args:
    volume: the CT.
    source: what was read of the same files.
    name: what messages call the study.
  """
  if source.series_uid != volume.series_uid or not is_same_grid(
    source.affine, source.shape, volume.affine, volume.shape
  ):
    raise errors.UsageError(
      f'{name}: the files that the CT was read from are required, found others; read '
      'it again.'
    )


def write_objects(
  folder: str | os.PathLike[str],
  result: results.CaseResult,
  source: source_lib.SourceSeries,
  *,
  map_form: MapForm = 'uint16',
  pictures: Sequence[KeyPicture] = (),
) -> tuple[pathlib.Path, ...]:
  """Writes segmentation, parametric map and structured report of a result.

  All of them appear, or none; those of an earlier result go away.

  Args:
    folder: of the result; the objects appear in its folder `dicom`.
    result: the scored study.
    source: its series (`read_source_of`).
    map_form: as of Options.
    pictures: what is written as secondary captures.

  Returns:
    What was written.

  Raises:
    errors.UsageError: the extra is missing, or the result is of another CT.
    errors.OutputError: a file cannot be written.
  """
  require_extra()
  require_same_series(result, source)
  options = Options(map_form)
  target = pathlib.Path(folder) / FOLDER
  # Here: these import highdicom.
  from covid_tf.storage.dicom import captures
  from covid_tf.storage.dicom import identity
  from covid_tf.storage.dicom import parametric_map
  from covid_tf.storage.dicom import segmentation
  from covid_tf.storage.dicom import structured_report

  with files.filling_folder(target, (), FILE_NAMES) as new:
    segments = segmentation.segmentation(source, result)
    _write(new / identity.SEGMENTATION.file_name, segments)
    map_ = parametric_map.parametric_map(source, result, map_form=options.map_form)
    _write(new / identity.PARAMETRIC_MAP.file_name, map_)
    report = structured_report.structured_report(source, result, segments, map_)
    _write(new / identity.REPORT.file_name, report)
    for kind, picture in captures.secondary_captures(source, result, pictures):
      _write(new / kind.file_name, picture)
    names = sorted(path.name for path in new.iterdir())
  return tuple(target / name for name in names)


def _write(path: pathlib.Path, made: pydicom.Dataset) -> None:
  """Writes an object and lets go of its pixels, which nobody needs any more."""
  made.save_as(path, enforce_file_format=True)
  for keyword in _PIXELS:
    if keyword in made:
      delattr(made, keyword)


def require_same_series(
  result: results.CaseResult, source: source_lib.SourceSeries
) -> None:
  """Raises UsageError unless a result is of the series, and on its grid."""
  if result.series_uid != source.series_uid:
    raise errors.UsageError(
      'the study: the series of the result is required '
      f'({result.series_uid or "none"}), found {source.series_uid}; give the study '
      'that was scored.'
    )
  if not is_same_grid(source.affine, source.shape, result.affine, result.shape):
    raise errors.UsageError(
      'the study: the grid of the result is required, to '
      f'{source_lib.SAME_MM:g} mm, found another place, spacing or size; give the '
      'study that was scored, as it was read then.'
    )


def is_same_grid(
  affine: np.ndarray,
  shape: Sequence[int],
  other: np.ndarray,
  other_shape: Sequence[int],
) -> bool:
  """Whether two grids have the same voxels: none further apart than SAME_MM."""
  return tuple(shape) == tuple(other_shape) and (
    _farthest_mm(affine, other, shape) <= _tolerance_mm(other, shape)
  )


def _farthest_mm(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
  corners = _corners(shape)
  return float(np.abs(corners @ (affine - other)[:3].T).max())


def _tolerance_mm(affine: np.ndarray, shape: Sequence[int]) -> float:
  # A NIfTI header holds float32: far from the origin that alone is more.
  places = np.abs(_corners(shape) @ affine[:3].T).max()
  return source_lib.SAME_MM + 2 * float(np.finfo(np.float32).eps * places)


def _corners(shape: Sequence[int]) -> np.ndarray:
  sides = ((0, size - 1) for size in shape)
  return np.array([(*corner, 1) for corner in itertools.product(*sides)], float)


# A result of NIfTI on the grid of the DICOM series that its CT was converted from.
# Converters turn planes: the voxels are the same, their rows and columns are not.


@dataclasses.dataclass(frozen=True)
class Turn:
  """How planes of a result become those of a series with the same voxels.

  Attributes:
    transposed: rows and columns are exchanged first.
    flipped: then, whether rows and columns run the other way.
  """

  transposed: bool
  flipped: tuple[bool, bool]

  def to_series(self, planes: np.ndarray) -> np.ndarray:
    """[..., row, column] of the result to that of the series."""
    planes = planes.swapaxes(-1, -2) if self.transposed else planes
    return np.flip(planes, self._axes())

  def to_result(self, planes: np.ndarray) -> np.ndarray:
    """[..., row, column] of the series to that of the result."""
    planes = np.flip(planes, self._axes())
    return planes.swapaxes(-1, -2) if self.transposed else planes

  def _axes(self) -> tuple[int, ...]:
    return tuple(axis for axis, is_so in zip((-2, -1), self.flipped) if is_so)


def turn_onto(
  result_affine: np.ndarray,
  result_shape: Sequence[int],
  source: source_lib.SourceSeries,
) -> Turn | None:
  """The turn that puts a result's planes on a series; None: on another grid."""
  slices, rows, columns = source.shape
  for transposed, *flipped in itertools.product((False, True), repeat=3):
    affine = source.affine.copy()
    for axis, size, is_flipped in zip((1, 2), (rows, columns), flipped):
      if is_flipped:
        affine[:3, 3] += affine[:3, axis] * (size - 1)
        affine[:3, axis] *= -1
    shape = (slices, rows, columns)
    if transposed:
      affine, shape = affine[:, [0, 2, 1, 3]], (slices, columns, rows)
    if is_same_grid(affine, shape, result_affine, result_shape):
      return Turn(transposed, (flipped[0], flipped[1]))
  return None


def turned(
  result: results.CaseResult, turn: Turn, source: source_lib.SourceSeries
) -> results.CaseResult:
  """A result of NIfTI as one of the series, with its planes and its UIDs."""
  localization = result.localization
  box = _turned_box(localization.box, turn, source.shape[1:])
  maps = [turn.to_series(np.asarray(map_)) for map_ in localization.maps]
  spacing: Any = tuple(np.linalg.norm(source.affine[:3, :3], axis=0).tolist())
  return dataclasses.replace(
    result,
    lung_mask=turn.to_series(result.lung_mask),
    localization=dataclasses.replace(
      localization, shape=source.shape, box=box, maps=maps
    ),
    lung_box=_turned_box(result.lung_box, turn, source.shape[1:]),
    shape=source.shape,
    spacing_mm=spacing,
    affine=source.affine,
    study_uid=source.study_uid,
    series_uid=source.series_uid,
    stored_grid=None,
  )


def _turned_box(
  box: results.LungBox, turn: Turn, shape: Sequence[int]
) -> results.LungBox:
  rows, columns = (box.row0, box.row1), (box.column0, box.column1)
  if turn.transposed:
    rows, columns = columns, rows
  if turn.flipped[0]:
    rows = shape[0] - rows[1], shape[0] - rows[0]
  if turn.flipped[1]:
    columns = shape[1] - columns[1], shape[1] - columns[0]
  return results.LungBox(rows[0], columns[0], rows[1], columns[1])

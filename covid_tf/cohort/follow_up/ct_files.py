"""The CT that results were made from, found again under a folder.

DICOM is known by its series UID. NIfTI, MetaImage and NRRD have none: there the grid
and the voxels' digest decide, which results hold since schema 3.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import case_score
from covid_tf.cohort.follow_up import course
from covid_tf.readers import discovery
from covid_tf.readers import formats
from covid_tf.readers import header
from covid_tf.readers import nifti
from covid_tf.readers import sources
from covid_tf.storage import maps as maps_lib

_OF_RESULTS = (maps_lib.MASK_NAME, maps_lib.MAP_NAME)
_ALONE = 'leave --studies out for the maps alone'


@dataclasses.dataclass(frozen=True)
class ScoredCT:
  """A study with its result, on one grid.

  Attributes:
    ct: the CT.
    lung_mask: uint8 [slice, row, column], 0 or 1.
    localization: the map.
    warning: what the reader should know of how the CT was found; '' for nothing.
  """

  ct: volume_lib.CTVolume
  lung_mask: np.ndarray
  localization: results.LocalizationMap
  warning: str = ''


@dataclasses.dataclass(frozen=True)
class Studies:
  """What lies under a folder.

  Attributes:
    root: the folder.
    by_series: Series Instance UID to its files.
    images: files of NIfTI, MetaImage and NRRD that are no map or mask of a result.
    notes: what was left aside, in words.
    reading: further keyword arguments of `read_ct`.
  """

  root: pathlib.Path
  by_series: Mapping[str, tuple[pathlib.Path, ...]]
  images: tuple[pathlib.Path, ...]
  notes: tuple[str, ...]
  reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def require(self, point: course.TimePoint) -> None:
    """Refuses a result whose study is certainly not there, before anything is read.

    Raises:
      errors.UsageError: it is gone, or map and mask are.
    """
    if not maps_lib.has_maps(point.folder):
      raise errors.UsageError(
        f'{point.folder}: {maps_lib.MASK_NAME} and {maps_lib.MAP_NAME} beside '
        'result.json are required to show the CT, found not both; score the study '
        f'again, or {_ALONE}.'
      )
    uid = point.result.series_uid
    if uid and uid not in self.by_series:
      raise self._missing(point, f'no image of its series {uid}')
    if not uid and not self.images:
      raise self._missing(
        point, 'no image file (NIfTI, MetaImage, NRRD; the result has no series UID)'
      )

  def read(self, point: course.TimePoint) -> ScoredCT:
    """Reads the CT of a result, and its map and mask.

    Raises:
      errors.UsageError: it is gone, other voxels were scored, or several could be
        meant.
      errors.CTReadError: its files are there and cannot be read.
    """
    self.require(point)
    if not point.result.series_uid:
      return self._read_image(point)
    ct = readers.read_files(
      self.by_series[point.result.series_uid],
      point.result.series_uid,
      name=point.folder.name,
      **self.reading,
    )
    mask, localization, _ = maps_lib.read_maps(point.folder, point.result, ct)
    if point.result.hu_sha256 not in (None, case_score.hu_digest(ct)):
      raise self._missing(point, 'its series with other voxels than were scored')
    return ScoredCT(ct, mask, localization)

  def _read_image(self, point: course.TimePoint) -> ScoredCT:
    """The file whose voxels were scored, or the only one on the same grid."""
    wanted = point.result.hu_sha256
    found: dict[str, ScoredCT] = {}
    for path in self.images:
      scored = self._on_grid(path, point)
      if scored is None:
        continue
      digest = case_score.hu_digest(scored.ct)
      if digest == wanted:
        return scored
      if wanted is None:
        found[digest] = scored
      if len(found) > 1:
        raise self._missing(
          point,
          'several different image files on its grid, and the result does not say '
          'which of them was scored (hu_sha256)',
        )
    if not found:
      raise self._missing(
        point,
        f'none of {len(self.images)} image file(s) on its grid with the voxels that '
        'were scored',
      )
    (scored,) = found.values()
    return dataclasses.replace(
      scored,
      warning=f'The CT of {point.folder.name} was found by its grid alone: the result '
      'has neither a series UID nor a digest of its voxels.',
    )

  def _on_grid(self, path: pathlib.Path, point: course.TimePoint) -> ScoredCT | None:
    try:
      if formats.volume_kind(path) == formats.NIFTI:  # Its header is read in no time.
        with nifti.opened(path) as (image, _):
          shape = image.shape[:3]
        if sorted(shape) != sorted(point.result.shape):
          return None
      ct = readers.read_ct(path, **self.reading)
    except (errors.CTReadError, OSError):
      return None
    if ct.shape != point.result.shape:
      return None
    try:
      mask, localization, _ = maps_lib.read_maps(point.folder, point.result, ct)
    except errors.UsageError:
      maps_lib.read_maps(point.folder, point.result)  # Damaged ones are refused so.
      return None
    return ScoredCT(ct, mask, localization)

  def _missing(self, point: course.TimePoint, found: str) -> errors.UsageError:
    aside = f' ({"; ".join(self.notes)})' if self.notes else ''
    return errors.UsageError(
      f'{point.folder}: the CT that was scored is required under {self.root}, found '
      f'{found}{aside}; give the folder that holds it, or {_ALONE}.'
    )


def find(root: pathlib.Path, reading: Mapping[str, Any] | None = None) -> Studies:
  """Looks through a folder, by headers alone.

  Args:
    root: searched with all folders below it.
    reading: keyword arguments of `read_ct`, for every study.

  Raises:
    errors.UsageError: it is no folder, or cannot be searched.
  """
  if not root.is_dir():
    raise errors.UsageError(
      f'{root}: a folder that holds the studies is required (--studies), found '
      f'{"a file" if root.exists() else "nothing"}; give the folder above them.'
    )
  by_series: dict[str, list[pathlib.Path]] = {}
  try:
    with discovery.find(root) as found:
      images = [path for path in found.niftis if isinstance(path, pathlib.Path)]
      for source in found.sources:
        if not isinstance(source, sources.FileSource):
          continue  # A folder holds files only.
        identity = header.identify(source.path)
        if identity is not None and identity.series_uid:
          by_series.setdefault(identity.series_uid, []).append(source.path)
        elif identity is None and formats.volume_kind(source.path):
          images.append(source.path)
      notes = found.notes
  except errors.CTReadError as error:
    raise errors.UsageError(f'{root}: {error}') from None
  except OSError as error:
    raise errors.UsageError(
      f'{root}: a file cannot be read ({error.strerror}); make it readable.'
    ) from None
  return Studies(
    root,
    {uid: tuple(paths) for uid, paths in by_series.items()},
    tuple(path for path in images if path.name not in _OF_RESULTS),
    notes,
    reading or {},
  )

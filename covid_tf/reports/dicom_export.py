"""A scored study as DICOM objects beside its CT: while it is scored, or later."""

import os
import pathlib
from typing import Any

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import rescoring
from covid_tf.reports import key_pictures
from covid_tf.storage import files
from covid_tf.storage import maps
from covid_tf.storage import result_json
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

# Names of the objects, for what an earlier run left; others' files in the folder stay.
PATTERNS = tuple(f'{objects.FOLDER}/{name}' for name in objects.FILE_NAMES)


def require_apart(
  study: str | os.PathLike[str], output: str | os.PathLike[str]
) -> None:
  """Raises UsageError if the objects would come among the files of the study."""
  target = (pathlib.Path(output) / objects.FOLDER).resolve()
  own = pathlib.Path(study).resolve()
  if target == own or own in target.parents and own != target.parent:
    raise errors.UsageError(
      f'{output}: a place outside of the study is required, since the DICOM objects '
      f'appear in its folder {objects.FOLDER}; choose another.'
    )


def export_result(
  result: str | os.PathLike[str],
  study: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  options: objects.Options | None = None,
  series_uid: str | None = None,
  reading: dict[str, Any] | None = None,
) -> tuple[pathlib.Path, ...]:
  """Writes the DICOM objects of a stored result; all of them appear, or none.

  Args:
    result: the folder that `scored_study.score_study` left, or its result.json.
    study: the DICOM files that were scored; of a result of NIfTI, a series with the
      same voxels in the same place, whichever way its planes are stored.
    output: where the folder `dicom` appears; may be that of the result.
    options: which objects; None: those of `objects.Options()`.
    series_uid: which series of the study; a result of DICOM names its own.
    reading: further keyword arguments of `read_ct`, as the study was scored with.

  Returns:
    The objects' paths.

  Raises:
    errors.CovidTFError: the study is not that of the result, no objects can be made
      for it, or they cannot be written; nothing appeared in `output`.
  """
  objects.require_extra()
  require_apart(study, output)
  options = options or objects.Options()
  path = pathlib.Path(result)
  stored = result_json.read_result(path)
  reading = dict(reading or {})
  wanted = stored.series_uid or series_uid
  if stored.series_uid:  # It names its series, whichever rule picked it.
    reading.pop('select', None)
  with files.filling_folder(output, (), PATTERNS) as folder:
    volume = readers.read_ct(study, **{**reading, 'series_uid': wanted})
    source = objects.read_source_of(study, volume, phase=reading.get('phase'))
    found = _case_result(path, stored, volume, source)
    written = write_objects(folder, found, volume, source, options)
  return tuple(pathlib.Path(output) / one.relative_to(folder) for one in written)


def write_objects(
  folder: pathlib.Path,
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  source: source_lib.SourceSeries,
  options: objects.Options,
) -> tuple[pathlib.Path, ...]:
  """Writes the objects of a result, with the pictures that are asked for.

  Args:
    folder: one of `files.filling_folder`, to have all or none.
    result: the scored study.
    volume: its CT, for the pictures.
    source: its series.
    options: which objects.

  Returns:
    What was written.

  Raises:
    errors.CovidTFError: as of `objects.write_objects`.
  """
  pictures = key_pictures.key_pictures(volume, result) if options.pictures else ()
  return objects.write_objects(
    folder, result, source, map_form=options.map_form, pictures=pictures
  )


def _case_result(
  path: pathlib.Path,
  stored: result_json.StoredResult,
  volume: volume_lib.CTVolume,
  source: source_lib.SourceSeries,
) -> results.CaseResult:
  """The stored result on the grid of the series, checked against the CT."""
  if stored.series_uid:
    return rescoring.as_scored(rescoring.read_scored(path, volume), volume)
  folder = path if path.is_dir() else path.parent
  lung_mask, affine = maps.read(folder / maps.MASK_NAME)
  turn = objects.turn_onto(affine, lung_mask.shape, source)
  if turn is None:
    raise errors.UsageError(
      f'{folder}: this result is of an image without DICOM headers; a DICOM series '
      f'with the same voxels, to {source_lib.SAME_MM:g} mm, is required, found one on '
      'another grid; give the series that the image was converted from.'
    )
  as_scored = volume_lib.CTVolume(
    hu=np.ascontiguousarray(turn.to_result(volume.hu)), affine=affine
  )
  found = rescoring.as_scored(rescoring.read_scored(path, as_scored), as_scored)
  return objects.turned(found, turn, source)

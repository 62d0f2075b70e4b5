"""One study from its files, or its result, to a result folder."""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import dataclasses
import logging
import os
import pathlib
from typing import Any

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import case_score
from covid_tf.analysis import corrections
from covid_tf.analysis import label_regions
from covid_tf.analysis import pipeline
from covid_tf.analysis import rescoring
from covid_tf.analysis import slabs
from covid_tf.predictors import interface
from covid_tf.readers import label_maps
from covid_tf.reports import case_report
from covid_tf.reports import case_viewer
from covid_tf.reports import dicom_export
from covid_tf.statistics import operating_points
from covid_tf.storage import files
from covid_tf.storage import maps
from covid_tf.storage import result_json
from covid_tf.storage.dicom import objects

_log = logging.getLogger(__name__)

# The files of one scored study, as `covid-tf score` leaves them.

# In the order in which they appear: result.json is there only when all are.
FILE_NAMES = (
  maps.MASK_NAME,
  maps.MAP_NAME,
  case_report.FILE_NAME,
  result_json.FILE_NAME,
)

# Where asked for; an earlier run's go with its files.
OTHER_NAMES = (case_viewer.FILE_NAME, *dicom_export.PATTERNS)

_NOTE = 'covid-tf; research use only'
_DEMO_NOTE = 'covid-tf DEMO MODELS; research use only'


def write_all(
  folder: pathlib.Path,
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  *,
  demo_models: bool,
  with_report: bool = True,
  viewer: bool = False,
) -> None:
  """Writes result.json, report.html, localization.nii.gz and lung_mask.nii.gz.

  Args:
    folder: where; `files.filling_folder` describes all or none.
    result: the scored study.
    volume: its CT, for the pictures.
    demo_models: the demo models answered, whatever their cards state.
    with_report: False leaves report.html out, which takes longer than the rest.
    viewer: writes viewer.html too, which the report links.

  Raises:
    errors.OutputError: a file cannot be written.
  """
  if demo_models or result.demo_models:
    result = result_json.marked_as_demo(result)
  note = _DEMO_NOTE if result.demo_models else _NOTE
  maps.write_lung_mask(folder / FILE_NAMES[0], result, note)
  maps.write_localization(folder / FILE_NAMES[1], result, note)
  if with_report:
    case_report.write_report(
      folder / FILE_NAMES[2],
      result,
      volume,
      demo_models=result.demo_models,
      viewer_name=case_viewer.FILE_NAME if viewer else None,
    )
  if viewer:
    case_viewer.write_viewer(
      folder / case_viewer.FILE_NAME,
      result,
      volume,
      report_name=case_report.FILE_NAME if with_report else None,
    )
  result_json.write_result(folder / FILE_NAMES[3], result)


def save(
  output: str | os.PathLike, result: results.CaseResult, volume: volume_lib.CTVolume
) -> pathlib.Path:
  """See `CaseResult.save`."""
  if not isinstance(output, (str, os.PathLike)):
    raise errors.UsageError(
      f'folder: a folder (str or path) is required, found {type(output).__name__}.'
    )
  if not isinstance(volume, volume_lib.CTVolume):
    raise errors.UsageError(
      'volume: the covid_tf.CTVolume that was scored is required, found '
      f'{type(volume).__name__}; covid_tf.read_ct(path) reads it.'
    )
  same_place = volume.shape == result.shape and np.allclose(
    volume.affine, result.affine, atol=1e-3
  )
  if not same_place or result.hu_sha256 not in (None, case_score.hu_digest(volume)):
    raise errors.UsageError(
      f'volume: the CT that was scored is required ({result.shape}), found another '
      f'({volume.shape}, or of other voxels or another place).'
    )
  with files.filling_folder(output, FILE_NAMES, OTHER_NAMES) as folder:
    write_all(folder, result, volume, demo_models=result.demo_models)
  return pathlib.Path(output)


# One study from its files to its result folder: `covid-tf score` and the demo.


def score_study(
  study: str | os.PathLike,
  output: str | os.PathLike,
  open_models: Callable[
    [], contextlib.AbstractContextManager[interface.VersionedModels]
  ],
  *,
  series_uid: str | None = None,
  patient_key_file: str | None = None,
  reading: Mapping[str, Any] | None = None,
  threshold: operating_points.CaseThreshold | None = None,
  thresholds: results.Thresholds | None = None,
  lung_mask: str | os.PathLike | None = None,
  exclude_slices: Iterable[int] = (),
  regions: str | os.PathLike | None = None,
  region_names: str | os.PathLike | None = None,
  demo_models: bool = False,
  dicom: objects.Options | None = None,
  viewer: bool = False,
) -> results.CaseResult:
  """Reads, scores and writes a study; all of its files appear, or none.

  Args:
    study: folder of DICOM files, or another place that `read_ct` reads.
    output: where the files of FILE_NAMES appear.
    open_models: called once the study is read.
    series_uid: which series of the study; None where there is one.
    patient_key_file: a site's secret, or None.
    reading: further keyword arguments of `read_ct`, such as resample_tilt.
    threshold: of the case; None for no answer.
    thresholds: of slices and map, thickness and smoothing, as of `analyze`; that of
      the case is replaced by `threshold`.
    lung_mask: NIfTI of 0 and 1 on the CT's grid; None: the lung network's.
    exclude_slices: indices of slices that count as negative.
    regions: NIfTI label map on the CT's grid; None: no further regions.
    region_names: of its labels, as `label_regions.read_names` takes them; None: none.
    demo_models: the models are the demo's, whatever their cards state.
    dicom: which DICOM objects appear in the folder `dicom` of `output`; None: none.
    viewer: whether viewer.html appears too (docs/viewer.md).

  Returns:
    The result whose files are in `output` now.

  Raises:
    errors.CovidTFError: nothing appeared in `output`.
  """
  exclude_slices = tuple(exclude_slices)
  names = _read_names(regions, region_names)
  if dicom is not None:
    objects.require_extra()
    dicom_export.require_apart(study, output)
  with files.filling_folder(output, FILE_NAMES, OTHER_NAMES) as folder:
    volume = readers.read_ct(
      study, series_uid=series_uid, patient_key_file=patient_key_file, **(reading or {})
    )
    if dicom is not None:  # Before any network is asked.
      phase = (reading or {}).get('phase')
      source = objects.read_source_of(study, volume, phase=phase)
    _log.info(
      'read: %d slices of %d x %d, %.3g mm apart', *volume.shape, volume.spacing_mm[0]
    )
    thresholds = dataclasses.replace(
      thresholds or results.Thresholds(),
      case_corona_score_cm3=threshold.corona_score_cm3 if threshold else None,
    )
    mask = _read_mask(lung_mask, volume)
    corrections.checked(volume, mask, exclude_slices)  # Before any network is asked.
    label_map = _read_regions(regions, names, volume)
    result = _answered(
      open_models,
      study,
      volume,
      threshold,
      thresholds=thresholds,
      lung_mask=mask,
      exclude_slices=exclude_slices,
      regions=label_map,
    )
    if demo_models or result.demo_models:
      result = result_json.marked_as_demo(result)
    _log.info('scored: %.1f cm³', result.corona_score_cm3)
    if dicom is not None:
      dicom_export.write_objects(folder, result, volume, source, dicom)
    write_all(folder, result, volume, demo_models=result.demo_models, viewer=viewer)
  written = (*FILE_NAMES, *((case_viewer.FILE_NAME,) if viewer else ()))
  _log.info('written: %s', ', '.join(written))
  return result


def _answered(
  open_models: Callable[
    [], contextlib.AbstractContextManager[interface.VersionedModels]
  ],
  study: str | os.PathLike,
  volume: volume_lib.CTVolume,
  threshold: operating_points.CaseThreshold | None,
  *,
  thresholds: results.Thresholds,
  **options: Any,
) -> results.CaseResult:
  """The result by models that the case's threshold belongs to, before and after."""
  with open_models() as models:
    _log.info('models: %s', ', '.join(map(_identity, models.identities())))
    if threshold:
      threshold.require_same_models(models.identities())
      _require_same_analysis(threshold, thresholds, volume, models)
    result = _analyze(study, volume, models, thresholds=thresholds, **options)
    if threshold:
      # Again: the server may have changed models since.
      threshold.require_same_models(result.models)
  return result


def _identity(model: results.ModelIdentity) -> str:
  return f'{model.name} {model.version} ({model.card_sha256[:12]})'


def rescore_study(
  result: str | os.PathLike,
  study: str | os.PathLike,
  output: str | os.PathLike,
  *,
  lung_mask: str | os.PathLike | None = None,
  exclude_slices: Iterable[int] = (),
  regions: str | os.PathLike | None = None,
  region_names: str | os.PathLike | None = None,
  slice_threshold: float | None = None,
  map_threshold: float | None = None,
  threshold: operating_points.CaseThreshold | None = None,
  reading: Mapping[str, Any] | None = None,
  viewer: bool = False,
) -> results.CaseResult:
  """Scores a stored result again, without any network, and writes it elsewhere.

  Args:
    result: the folder that `score_study` left, or its result.json; never changed.
    study: the files that were scored.
    output: where the files of FILE_NAMES appear; not the result's folder.
    lung_mask, exclude_slices, slice_threshold, map_threshold: as of
      `rescoring.rescore`; the mask as NIfTI on the CT's grid.
    regions, region_names: as of `score_study`.
    threshold: of the case; None for that of the result.
    reading: keyword arguments of `read_ct`; the series is that of the result.
    viewer: whether viewer.html appears too.

  Returns:
    The result whose files are in `output` now.

  Raises:
    errors.CovidTFError: nothing appeared in `output`.
  """
  path = pathlib.Path(result)
  folder = path if path.is_dir() else path.parent
  _require_elsewhere(folder, output)
  stored = result_json.read_result(path)
  if not os.path.exists(study):
    raise errors.UsageError(
      f'{study}: the study of {folder} is required, found nothing there; give the '
      'files that were scored.'
    )
  if threshold:
    _require_of_stored(threshold, stored, slice_threshold, map_threshold)
  names = _read_names(regions, region_names)
  options = {'series_uid': stored.series_uid or None} | dict(reading or {})
  with files.filling_folder(output, FILE_NAMES, OTHER_NAMES) as made:
    volume = readers.read_ct(study, **options)
    rescored = rescoring.rescore(
      path,
      volume,
      lung_mask=_read_mask(lung_mask, volume),
      exclude_slices=exclude_slices,
      slice_threshold=slice_threshold,
      map_threshold=map_threshold,
      case_threshold_cm3=threshold.corona_score_cm3 if threshold else None,
      regions=_read_regions(regions, names, volume),
    )
    write_all(made, rescored, volume, demo_models=rescored.demo_models, viewer=viewer)
  return rescored


def _require_of_stored(
  threshold: operating_points.CaseThreshold,
  stored: result_json.StoredResult,
  slice_threshold: float | None,
  map_threshold: float | None,
) -> None:
  """Refuses a threshold of other models, or of another analysis than is asked for."""
  threshold.require_same_models(stored.models)
  averaged = slabs.of_study(stored, stored.thresholds).is_averaged
  own = stored.thresholds
  used = dataclasses.replace(
    own,
    slice_probability=own.slice_probability
    if slice_threshold is None
    else slice_threshold,
    map=own.map if map_threshold is None else map_threshold,
  )
  threshold.require_same_analysis(used, averaged)


def _require_elsewhere(folder: pathlib.Path, output: str | os.PathLike) -> None:
  own, other = folder.resolve(), pathlib.Path(output).resolve()
  if own == other or own in other.parents:
    raise errors.UsageError(
      f'{output}: another folder than that of the result is required, which is never '
      'changed; choose one outside of it.'
    )


def _read_mask(
  path: str | os.PathLike | None, volume: volume_lib.CTVolume
) -> np.ndarray | None:
  """uint8 [slice, row, column] of 0 and 1 from a file on the CT's grid."""
  if path is None:
    return None
  labels = label_maps.read_label_map(path, volume)
  if labels.max() > 1:
    raise errors.UsageError(
      f'{path}: a lung mask of 0 and 1 is required, found labels '
      f'{label_maps.in_words(labels)}; make one label, 1, of all that is lung.'
    )
  return labels.astype(np.uint8)


def _read_names(
  regions: str | os.PathLike | None, region_names: str | os.PathLike | None
) -> dict[int, str] | None:
  if region_names is None:
    return None
  if regions is None:
    raise errors.UsageError(
      'region names: a label map (--regions) is required that they belong to, found '
      'none; give both.'
    )
  return label_regions.read_names(region_names)


def _read_regions(
  path: str | os.PathLike | None,
  names: dict[int, str] | None,
  volume: volume_lib.CTVolume,
) -> label_regions.LabelMap | None:
  """The label map of a file on the CT's grid, with the names of its labels."""
  if path is None:
    return None
  labels = label_maps.read_label_map(path, volume)
  try:
    return label_regions.checked(volume, label_regions.LabelMap(labels, names))
  except errors.UsageError as error:
    raise errors.UsageError(f'{path}: {error}') from None


def _require_same_analysis(
  threshold: operating_points.CaseThreshold,
  stated: results.Thresholds,
  volume: volume_lib.CTVolume,
  models: interface.VersionedModels,
) -> None:
  used = slabs.as_used(stated, models.identities())
  divided = slabs.of_study(volume, used)
  threshold.require_same_analysis(used, divided.is_averaged)


def _analyze(study, volume, models, **options) -> results.CaseResult:
  try:
    return pipeline.analyze(volume, models, **options)
  except errors.StudyRefusedError as error:
    raise type(error)(f'{study}: {error}') from error

"""A CT volume from files: found, chosen, checked, decoded, in Hounsfield units."""

from collections.abc import Iterable, Sequence
import dataclasses
import os
import pathlib

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import acquisition
from covid_tf.readers import choice
from covid_tf.readers import discovery
from covid_tf.readers import geometry
from covid_tf.readers import itk_files
from covid_tf.readers import nifti
from covid_tf.readers import privacy
from covid_tf.readers import series as series_lib
from covid_tf.readers import sources
from covid_tf.readers import stack_volume
from covid_tf.readers import stacking
from covid_tf.readers import wanted as wanted_lib


def read_ct(
  path: str | os.PathLike[str],
  series_uid: str | None = None,
  *,
  patient_key_file: str | os.PathLike[str] | None = None,
  resample_tilt: bool = False,
  ignore_frame_of_reference: bool = False,
  phase: str | int | None = None,
  select: str | None = None,
) -> volume.CTVolume:
  """Reads one axial chest CT, exactly or not at all.

    volume = covid_tf.read_ct('study/')
    volume.hu[0], volume.spacing_mm  # int16 HU of the lowest slice; millimetres.

  Args:
    path: a folder (searched through), a DICOM file of many frames, a DICOMDIR, a
      file of NIfTI, MetaImage (.mha, .mhd) or NRRD (.nrrd, .nhdr), or a zip of DICOM
      files or of one such file. MetaImage and NRRD need SimpleITK (extra [itk]).
    series_uid: the series to read; without it the place must hold one clear
      choice.
    patient_key_file: a site's secret (at least 16 bytes); with it the volume
      carries a `patient_key` that is the same for all studies of a patient.
    resample_tilt: straighten a series with gantry tilt by linear interpolation
      instead of refusing it; the volume's warnings say so.
    ignore_frame_of_reference: take the positions of slices for those of one frame
      of reference although their UIDs differ; the volume's warnings say so.
    phase: of a series with several images at one place those to read: a number in
      the order of the refusal's list, or 'KEYWORD=VALUE' of a header field, such as
      'TriggerTime=450'; the volume's warnings say so.
    select: a rule that picks one of several series, such as
      'thickness=thinnest,kernel=B6*' (docs/reader.md); the volume's warnings name
      the rule and what it picked.

  Returns:
    The volume; its `warnings` name every oddity that was accepted.

  Raises:
    CTReadError: the files are not a CT volume whose millimetres and Hounsfield
      units can be trusted; the text says what is wrong, where, and what to do.
    UsageError: the key file is unusable, or phase or select is none, or select
      and series_uid are both given.
  """
  if not isinstance(path, (str, os.PathLike)):
    raise errors.UsageError(
      'path: a folder, a DICOM file, a DICOMDIR, a zip or a file of NIfTI, MetaImage '
      f'or NRRD (str or path) is required, found {type(path).__name__}; of voxels in '
      'memory covid_tf.CTVolume.from_array(hu, spacing_mm=..., orientation=...), '
      'from_sitk(image) and from_nibabel(image) make a volume; hu is [slice, row, '
      'column], such as int16.'
    )
  if not isinstance(series_uid, (str, type(None))):
    raise errors.UsageError(
      'series_uid: a Series Instance UID (str) or None is required, found '
      f'{type(series_uid).__name__}.'
    )
  hasher = _hasher(patient_key_file)
  wanted = wanted_lib.Wanted(
    series_uid,
    resample_tilt,
    ignore_frame_of_reference,
    None if phase is None else str(phase),
    None if select is None else choice.parse(select),
  )
  path = pathlib.Path(os.fsdecode(path))
  with wanted_lib.refusing(path.name or str(path)), discovery.find(path) as found:
    return _read(found, wanted, hasher)


def read_files(
  files: Iterable[str | os.PathLike[str]],
  series_uid: str | None = None,
  *,
  name: str,
  patient_key_file: str | os.PathLike[str] | None = None,
  resample_tilt: bool = False,
  ignore_frame_of_reference: bool = False,
  phase: str | int | None = None,
  select: str | None = None,
) -> volume.CTVolume:
  """Reads one axial chest CT from DICOM files that are known to belong together.

  Args:
    files: regular files, or links to them; what is not DICOM among them is left aside.
    series_uid, patient_key_file, resample_tilt, ignore_frame_of_reference, phase,
      select: as for `read_ct`.
    name: what messages call the study.

  Returns:
    The volume, as `read_ct` of a folder with these files gives it.

  Raises:
    CTReadError, UsageError: as for `read_ct`.
  """
  hasher = _hasher(patient_key_file)
  wanted = wanted_lib.Wanted(
    series_uid,
    resample_tilt,
    ignore_frame_of_reference,
    None if phase is None else str(phase),
    None if select is None else choice.parse(select),
  )
  with wanted_lib.refusing(name):
    return _read(discovery.of_files(files), wanted, hasher)


def require_options(
  *, phase: str | None = None, select: str | None = None, **others: object
) -> None:
  """Raises UsageError for options of `read_ct` that no study can be read with."""
  del others
  stacking.require_phase(phase)
  if select is not None:
    choice.parse(select)


def list_series(path: str | os.PathLike[str]) -> tuple[series_lib.SeriesSummary, ...]:
  """Lists the DICOM series of a place from their headers; no pixel is decoded.

  Raises:
    CTReadError: the place cannot be read.
  """
  path = pathlib.Path(os.fsdecode(path))
  with wanted_lib.refusing(path.name or str(path)), discovery.find(path) as found:
    all_series, _ = wanted_lib.series_of(found, privacy.PatientHasher())
    return tuple(map(series_lib.summary, all_series))


def _hasher(patient_key_file: str | os.PathLike[str] | None) -> privacy.PatientHasher:
  key = None if patient_key_file is None else privacy.load_key(patient_key_file)
  return privacy.PatientHasher(key)


def _read(
  found: discovery.Found, wanted: wanted_lib.Wanted, hasher: privacy.PatientHasher
) -> volume.CTVolume:
  all_series, notes = wanted_lib.series_of(found, hasher)
  images = (*found.niftis, *found.itk)
  if not all_series and len(images) == 1:
    if found.niftis:
      with sources.on_disk(found.niftis[0]) as file:
        ct = nifti.read(file)
    else:
      ct = itk_files.read(found.itk[0])
    return _without_header(_acquired(ct, ()), wanted)
  if not all_series:
    raise wanted_lib.nothing_to_read(found)
  series, stack, choice_notes = wanted_lib.stacked(all_series, wanted)
  result = stack_volume.volume_of(
    series,
    stack,
    (*notes, *choice_notes),
    _patient_key(all_series, series) if hasher.lasting else None,
  )
  return _acquired(
    geometry.straightened(result) if wanted.resample_tilt else result,
    [image.settings for image in series.images],
  )


def _acquired(
  ct: volume.CTVolume, settings: Sequence[volume.Acquisition]
) -> volume.CTVolume:
  """The volume with what its images say of how they were acquired."""
  found, warnings = acquisition.of_series(settings, ct.spacing_mm[0])
  return dataclasses.replace(ct, acquisition=found, warnings=ct.warnings + warnings)


def _without_header(ct: volume.CTVolume, wanted: wanted_lib.Wanted) -> volume.CTVolume:
  """A volume without DICOM; says that no header was there to choose by."""
  if not wanted.rule and not wanted.phase:
    return ct
  note = (
    'a NIfTI, MetaImage or NRRD file has no series or phases; --select and --phase '
    'were not applied'
  )
  return dataclasses.replace(ct, warnings=(*ct.warnings, note))


def _patient_key(
  all_series: list[series_lib.Series], chosen: series_lib.Series
) -> str | None:
  """The key of the patient, the same for whichever series of the study is read.

  Some series of a study may give the issuer of the ID and others not.
  """
  ids = {image.patient.by_id for image in chosen.images} - {None}
  return privacy.lasting_key(
    image.patient
    for series in all_series
    for image in series.images
    if series.uid == chosen.uid
    or series_lib.is_slice(image)
    and image.study_uid
    and image.study_uid in chosen.study_uids
    and image.patient.by_id in ids
  )

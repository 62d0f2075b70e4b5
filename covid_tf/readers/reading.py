"""A CT volume from files: found, chosen, checked, decoded, in Hounsfield units."""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib

import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import acquisition
from covid_tf.readers import choice
from covid_tf.readers import dataset
from covid_tf.readers import decoding
from covid_tf.readers import discovery
from covid_tf.readers import elements
from covid_tf.readers import formats
from covid_tf.readers import geometry
from covid_tf.readers import header
from covid_tf.readers import hounsfield
from covid_tf.readers import images as images_lib
from covid_tf.readers import itk_files
from covid_tf.readers import nifti
from covid_tf.readers import privacy
from covid_tf.readers import series as series_lib
from covid_tf.readers import sources
from covid_tf.readers import stacking


def load_voxels(stack: stacking.Stack) -> tuple[np.ndarray, tuple[str, ...]]:
  """Decodes all slices.

  Returns:
    (int16 HU [slice, row, column], warnings with the counts of what was changed).

  Raises:
    CTReadError: pixels that cannot be trusted, or different images at one place.
  """
  layout = stack.places[0][0].require_pixels()
  shape = (len(stack.places), layout.rows, layout.columns)
  words = np.empty(shape, np.uint16)  # HU take the place of the words, one by one.
  reader = decoding.PixelReader()
  corrections = hounsfield.Corrections()
  for place, target in zip(stack.places, words):
    corrections += _load_image(reader, place[0], target)
    for copy in place[1:]:
      other = np.empty_like(target)
      _load_image(reader, copy, other)
      if not np.array_equal(target, other):
        raise stacking.conflict(stack, place)
  return words.view(np.int16), _warnings(stack, corrections)


def _load_image(
  reader: decoding.PixelReader, image: images_lib.Image, target: np.ndarray
) -> hounsfield.Corrections:
  try:
    return hounsfield.convert_to_hu(reader.read_into(image, target), image, target)
  except errors.CTReadError as error:
    raise errors.CTReadError(
      f'{image.name} (z = {image.require_plane().position[2]:.2f} mm): {error}'
    ) from None
  except OSError as error:
    raise errors.CTReadError(
      f'{image.name}: it cannot be read any more ({error.strerror}).'
    ) from None


def _warnings(
  stack: stacking.Stack, corrections: hounsfield.Corrections
) -> tuple[str, ...]:
  warnings = []
  if copies := sum(len(place) - 1 for place in stack.places):
    warnings.append(f'{copies} identical copies of slices were dropped')
  if corrections.padding:
    warnings.append(f'{corrections.padding} padding voxels were set to -1024 HU')
  if corrections.kept:
    warnings.append(
      f'{corrections.kept} voxels hold the Pixel Padding Value where it may be a '
      'measured one; they keep their HU'
    )
  if corrections.below_air:
    warnings.append(
      f'{corrections.below_air} voxels below -1024 HU were set to -1024 HU'
    )
  return tuple(warnings)


# Steps of so many thicknesses: more than rounding of nominal values, less than the 2
# of a series that lost every second slice.
_GAP = 1.5
# The defined term of Rescale Type for units that are not said; GDCM writes it into
# every file that had no Rescale Type.
_UNSPECIFIED = 'US'


@dataclasses.dataclass(frozen=True)
class _Wanted:
  """What a caller asks of the reader; see `read_ct`."""

  series_uid: str | None = None
  resample_tilt: bool = False
  ignore_frame_of_reference: bool = False
  phase: str | None = None
  rule: choice.Rule | None = None

  def __post_init__(self) -> None:
    stacking.require_phase(self.phase)
    if self.series_uid is not None and self.rule:
      raise errors.UsageError(
        'a series UID and a selection rule are given; one of them is required, or none.'
      )


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
  wanted = _Wanted(
    series_uid,
    resample_tilt,
    ignore_frame_of_reference,
    None if phase is None else str(phase),
    None if select is None else choice.parse(select),
  )
  path = pathlib.Path(os.fsdecode(path))
  with _refusing(path.name or str(path)), discovery.find(path) as found:
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
  wanted = _Wanted(
    series_uid,
    resample_tilt,
    ignore_frame_of_reference,
    None if phase is None else str(phase),
    None if select is None else choice.parse(select),
  )
  with _refusing(name):
    return _read(discovery.of_files(files), wanted, hasher)


@dataclasses.dataclass(frozen=True)
class SliceHeaders:
  """The headers of a series' slices, in the order of its volume.

  Attributes:
    grid: where the slices lie; `tilt_deg` says how much they are sheared.
    images: [slice], from the most inferior one of the patient.
    elements: [slice], tag to raw element, of the tags that were asked for.
  """

  grid: geometry.Grid
  images: tuple[images_lib.Image, ...]
  elements: tuple[elements.Elements, ...]


def read_headers(
  path: str | os.PathLike[str],
  tags: Iterable[int],
  series_uid: str | None = None,
  *,
  phase: str | int | None = None,
  select: str | None = None,
) -> SliceHeaders:
  """Reads the headers of the slices that `read_ct` reads, without a pixel.

  A series with gantry tilt, or of several frames of reference, is read as it lies:
  whether that will do, the caller says.

  Args:
    path, series_uid, phase, select: as for `read_ct`.
    tags: of the elements to collect.

  Raises:
    CTReadError: they are no slices of one volume, or no DICOM.
    UsageError: phase or select is none, or select and series_uid are both given.
  """
  wanted = _Wanted(
    series_uid,
    resample_tilt=True,
    ignore_frame_of_reference=True,
    phase=None if phase is None else str(phase),
    rule=None if select is None else choice.parse(select),
  )
  path = pathlib.Path(os.fsdecode(path))
  with _refusing(path.name or str(path)), discovery.find(path) as found:
    return _slice_headers(found, tags, wanted)


def read_headers_of_files(
  files: Iterable[str | os.PathLike[str]],
  tags: Iterable[int],
  series_uid: str | None = None,
  *,
  name: str,
  phase: str | int | None = None,
) -> SliceHeaders:
  """The same of the slices that `read_files` reads.

  Args:
    files, name: as for `read_files`.
    tags, series_uid, phase: as for `read_headers`.

  Raises:
    CTReadError, UsageError: as for `read_headers`.
  """
  wanted = _Wanted(
    series_uid,
    resample_tilt=True,
    ignore_frame_of_reference=True,
    phase=None if phase is None else str(phase),
  )
  with _refusing(name):
    return _slice_headers(discovery.of_files(files), tags, wanted)


def _slice_headers(
  found: discovery.Found, tags: Iterable[int], wanted: _Wanted
) -> SliceHeaders:
  all_series, _ = _all_series(found, privacy.PatientHasher())
  if not all_series and (found.niftis or found.itk):
    raise errors.CTReadError(
      'a DICOM series is required, found an image without DICOM headers.'
    )
  if not all_series:
    raise errors.CTReadError(_nothing(found))
  _, stack, _ = _stacked(all_series, wanted)
  images = tuple(place[0] for place in stack.places)
  layouts = [image.require_pixels() for image in images]
  asked = frozenset(tags)
  return SliceHeaders(
    stack.grid,
    images,
    tuple(dataset.elements_of(one.source, one.offset, asked) for one in layouts),
  )


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
  with _refusing(path.name or str(path)), discovery.find(path) as found:
    all_series, _ = _all_series(found, privacy.PatientHasher())
    return tuple(map(series_lib.summary, all_series))


def _hasher(patient_key_file: str | os.PathLike[str] | None) -> privacy.PatientHasher:
  key = None if patient_key_file is None else privacy.load_key(patient_key_file)
  return privacy.PatientHasher(key)


def _read(
  found: discovery.Found, wanted: _Wanted, hasher: privacy.PatientHasher
) -> volume.CTVolume:
  all_series, notes = _all_series(found, hasher)
  images = (*found.niftis, *found.itk)
  if not all_series and len(images) == 1:
    if found.niftis:
      with sources.on_disk(found.niftis[0]) as file:
        ct = nifti.read(file)
    else:
      ct = itk_files.read(found.itk[0])
    return _without_header(_acquired(ct, ()), wanted)
  if not all_series:
    raise errors.CTReadError(_nothing(found))
  series, stack, choice_notes = _stacked(all_series, wanted)
  result = _volume(
    series,
    stack,
    (*notes, *choice_notes),
    _patient_key(all_series, series) if hasher.lasting else None,
  )
  return _acquired(
    geometry.straightened(result) if wanted.resample_tilt else result,
    [image.settings for image in series.images],
  )


def _stacked(
  all_series: list[series_lib.Series], wanted: _Wanted
) -> tuple[series_lib.Series, stacking.Stack, tuple[str, ...]]:
  """The series that is wanted, its images in order, and notes on the choice."""
  series, choice_notes = choice.choose(all_series, wanted.series_uid, wanted.rule)
  _require_no_stray(all_series, series)
  kept, phase_notes = stacking.chosen(series.images, wanted.phase)
  series = dataclasses.replace(series, images=kept)
  frame_notes = series_lib.require_one_stack(
    series, ignore_frame_of_reference=wanted.ignore_frame_of_reference
  )
  stack = stacking.stack(series.images, tilt_allowed=wanted.resample_tilt)
  return series, stack, (*choice_notes, *phase_notes, *frame_notes)


def _acquired(
  ct: volume.CTVolume, settings: Sequence[volume.Acquisition]
) -> volume.CTVolume:
  """The volume with what its images say of how they were acquired."""
  found, warnings = acquisition.of_series(settings, ct.spacing_mm[0])
  return dataclasses.replace(ct, acquisition=found, warnings=ct.warnings + warnings)


def _without_header(ct: volume.CTVolume, wanted: _Wanted) -> volume.CTVolume:
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


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
  """Lets only refusals out, each with the name of the study before it.

  Damaged bytes make libraries raise anything, with values of the header in the
  text and the chain, so none of it is passed on.
  """
  name = elements.printable(name)
  try:
    # Numbers of a damaged header may have no quotient; each result is checked.
    with np.errstate(all='ignore'):
      yield
  except errors.CTReadError as error:
    raise errors.CTReadError(f'{name}: {error}') from None
  except MemoryError:
    raise errors.CTReadError(f'{name}: the volume does not fit into memory.') from None
  except Exception as error:
    raise errors.CTReadError(
      f'{name}: the files are damaged or cannot be read ({type(error).__name__}).'
    ) from None


def _all_series(
  found: discovery.Found, hasher: privacy.PatientHasher
) -> tuple[list[series_lib.Series], tuple[str, ...]]:
  """All series of a place, from headers alone, and notes on what was skipped."""
  images: list[images_lib.Image] = []
  broken: list[images_lib.BrokenFile] = []
  empty = 0
  others: list[str] = []
  for source in found.sources:
    empty += source.size == 0
    result = header.images_of(source, hasher)
    if isinstance(result, images_lib.BrokenFile):
      broken.append(result)
    elif result:
      images.extend(result)
    elif result is None and source.size and formats.is_named_dicom(source.name):
      others.append(source.name)
  notes = list(found.notes)
  if empty:
    notes.append(f'{empty} empty file(s) skipped')
  if others:
    notes.append(
      f'{len(others)} file(s) are called as DICOM is and are none, the first one '
      f'{elements.printable(others[0])}: skipped'
    )
  return series_lib.grouped(images, broken), tuple(notes)


def _nothing(found: discovery.Found) -> str:
  if found.niftis and not found.itk:
    return f'{len(found.niftis)} NIfTI files in one place; give one of them.'
  if found.itk:
    count = len(found.niftis) + len(found.itk)
    return f'{count} volumes in one zip (NIfTI, MetaImage, NRRD); give one of them.'
  if known := formats.other_format(found.sources):
    raise errors.CTReadError(known)
  return (
    f'no CT images among {len(found.sources)} file(s); give a folder of DICOM '
    'CT slices, a DICOMDIR, a zip of them, or a NIfTI, MetaImage or NRRD file.'
    + ''.join(f' ({note})' for note in found.notes)
  )


def _require_no_stray(
  all_series: list[series_lib.Series], chosen: series_lib.Series
) -> None:
  """Files without a series UID may be slices of the chosen series."""
  for series in all_series:
    if series.uid or series is chosen:
      continue
    series_lib.refuse_broken(series.broken)
    if not series_lib.refusal(series) or len(series.images) == 1:
      raise errors.CTReadError(
        f'{len(series.images)} image(s) carry no Series Instance UID, beside a '
        'series that has one; they may be its slices.'
      )


def _gaps(images: Sequence[images_lib.Image], grid: geometry.Grid) -> tuple[str, ...]:
  """Says where slices are thinner than their steps: every second one may be lost."""
  thicknesses = [image.thickness_mm for image in images if image.thickness_mm]
  step = float(np.linalg.norm(grid.affine[:3, 0]))
  thickest = max(thicknesses, default=step)
  if step <= _GAP * thickest:
    return ()
  return (
    f'slices of {thickest:g} mm lie {step:.4g} mm apart: what is between them '
    'was not imaged, or is missing',
  )


def _units(images: Sequence[images_lib.Image], not_hu: str | None) -> tuple[str, ...]:
  """What to say of the units of a DICOM series.

  Args:
    images: its images.
    not_hu: why its voxels are no HU of a chest, or None.

  Raises:
    CTReadError: its header does not say HU, and its voxels do not look so.
  """
  units = {image.require_rescale().unit for image in images} - {''}
  found = ', '.join(f"'{unit}'" for unit in sorted(units)[:4])
  if units and not_hu:
    raise errors.CTReadError(
      f'Rescale Type must be HU where the voxels do not look so, found {found}: '
      f'{not_hu}; export the CT in Hounsfield units.'
    )
  if not_hu:
    return (f'{not_hu}: is this a chest?',)
  if units - {_UNSPECIFIED}:
    return (
      f'Rescale Type is {found}; the voxels look like Hounsfield units and were '
      'read as such',
    )
  return ()


def _volume(
  series: series_lib.Series,
  stack: stacking.Stack,
  notes: Iterable[str],
  patient_key: str | None,
) -> volume.CTVolume:
  hu, changes = load_voxels(stack)
  images = series.images
  oddities = dict.fromkeys(note for image in images for note in image.notes)
  warnings = [
    *notes,
    *oddities,
    *stack.grid.warnings,
    *_gaps(images, stack.grid),
    *changes,
  ]
  warnings += _units(images, hounsfield.judge(hu))
  if series.localizers:
    warnings.append(f'{len(series.localizers)} localizer(s) in the series set aside')
  if series.captures:
    warnings.append(
      f'{len(series.captures)} image(s) of the series that are no slices (screen '
      'save, dose sheet, other kind of object) set aside'
    )
  first = stack.places[0][0]
  return volume.CTVolume(
    hu=hu,
    affine=stack.grid.affine,
    study_uid=min(series.study_uids, default=''),
    series_uid=series.uid,
    warnings=tuple(warnings),
    acquisition_date=first.date,
    patient_key=patient_key,
  )

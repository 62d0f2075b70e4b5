"""From the elements of a header to image records, with what is wrong in words."""

import collections
from collections.abc import Callable
import dataclasses
import os
import pathlib
from typing import Any, ParamSpec, TypeVar

from pydicom import uid as pydicom_uid

from covid_tf.readers import acquisition as acquisition_lib
from covid_tf.readers import dataset
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import formats
from covid_tf.readers import image_values
from covid_tf.readers import images
from covid_tf.readers import pixels as pixels_lib
from covid_tf.readers import privacy
from covid_tf.readers import sources

_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')


def _tried(
  problems: list[str],
  function: Callable[_Arguments, _Result],
  *args: _Arguments.args,
  **options: _Arguments.kwargs,
) -> _Result | None:
  """The result of `function`, or None with the reason added to `problems`."""
  try:
    return function(*args, **options)
  except elements_lib.ElementError as error:
    problems.append(str(error))
    return None


# Functional groups of enhanced multi-frame CT (PS3.3 C.7.6.16).

# The macros that the reader needs: each is a sequence of one item.
_PIXEL_MEASURES = 0x00289110
_PLANE_POSITION = 0x00209113
_PLANE_ORIENTATION = 0x00209116
_PIXEL_VALUE_TRANSFORMATION = 0x00289145
_CT_IMAGE_FRAME_TYPE = 0x00189329
_CT_RECONSTRUCTION = 0x00189314
_FRAME_CONTENT = 0x00209111
_CARDIAC_SYNCHRONIZATION = 0x00189118
_MACROS = (
  _PIXEL_MEASURES,
  _PLANE_POSITION,
  _PLANE_ORIENTATION,
  _PIXEL_VALUE_TRANSFORMATION,
  _CT_IMAGE_FRAME_TYPE,
  _CT_RECONSTRUCTION,
  _FRAME_CONTENT,
  _CARDIAC_SYNCHRONIZATION,
)


def functional_groups(elements: elements_lib.Elements) -> list[elements_lib.Elements]:
  """For each frame a mapping of tag to raw element, as a single-frame file has.

  A macro stands either in the shared group or in that of each frame. What the
  top level of the file says of geometry or rescale does not count, but kernel,
  thickness, acquisition, scanner and contrast do where no macro says more.

  Raises:
    ElementError: there are no per-frame groups.
  """
  shared = elements_lib.items(elements, elements_lib.SHARED_FUNCTIONAL_GROUPS)
  frames = elements_lib.items(elements, elements_lib.PER_FRAME_FUNCTIONAL_GROUPS)
  if not frames or len(shared) > 1:
    raise elements_lib.ElementError(
      'an enhanced CT needs functional groups for each frame, found '
      f'{len(shared)} shared and {len(frames)} of frames'
    )
  common = _values(shared[0]) if shared else {}
  outside = {
    tag: elements[tag]
    for tag in (
      elements_lib.IMAGE_TYPE,
      elements_lib.CONVOLUTION_KERNEL,
      elements_lib.ACQUISITION_NUMBER,
      elements_lib.SLICE_THICKNESS,
      *acquisition_lib.TAGS,
    )
    if tag in elements
  }
  return [collections.ChainMap(_values(frame), common, outside) for frame in frames]


def _values(group: elements_lib.Elements) -> dict[int, elements_lib.Element]:
  values = acquisition_lib.of_macros(group)
  for macro in _MACROS:
    items = elements_lib.items(group, macro)
    if len(items) > 1:
      raise elements_lib.ElementError(
        f'{elements_lib.described(macro)} must have one item, found {len(items)}'
      )
    values.update(*items)
  return values


_DATES = (
  elements_lib.ACQUISITION_DATE,
  elements_lib.ACQUISITION_DATE_TIME,
  elements_lib.SERIES_DATE,
  elements_lib.STUDY_DATE,
)
_GREY = ('', 'MONOCHROME1', 'MONOCHROME2')


def images_of(
  source: sources.SizedSource, hasher: privacy.PatientHasher
) -> list[images.Image] | images.BrokenFile | None:
  """The images of a file as its header describes them; no pixel is read.

  Returns:
    One image, or one a frame of an enhanced file; [] for a DICOM object without
    images; None for a file that is not DICOM; a BrokenFile, also for what stands in
    the place of a file that was DICOM.
  """
  try:
    data_set = dataset.read(source)
  except dataset.NotDicomError:
    lost = formats.lost_image(source.name, source.read(0, formats.START_BYTES))
    return images.BrokenFile(source.name, '', *lost) if lost else None
  except dataset.IncompleteError as error:
    return _broken_or_no_image(source, error)
  elements = data_set.elements
  if (
    elements_lib.text(elements, elements_lib.SOP_CLASS_UID)
    in elements_lib.OVER_A_SERIES
  ):
    return []
  try:
    return _images(data_set, hasher)
  except Exception as error:  # A damaged sequence fails anywhere inside pydicom.
    reason = (
      str(error)
      if isinstance(error, elements_lib.ElementError)
      else ('its functional groups are damaged')
    )
    return images.BrokenFile(source.name, _series_uid(elements), reason)


def _broken_or_no_image(
  source: sources.Source, error: dataset.IncompleteError
) -> list[images.Image] | images.BrokenFile:
  """Whether a file without pixels lost them or never had any."""
  sop_class = (
    elements_lib.text(error.elements, elements_lib.SOP_CLASS_UID) or error.media_class
  )
  modality = elements_lib.text(error.elements, elements_lib.MODALITY)
  if (
    sop_class
    and sop_class not in elements_lib.CT_SOP_CLASSES
    or (not sop_class and modality not in ('', 'CT'))
  ):
    return []
  return images.BrokenFile(
    source.name, _series_uid(error.elements), str(error), error.remedy
  )


def _series_uid(elements: elements_lib.Elements) -> str:
  return elements_lib.safe_uid(
    elements_lib.text(elements, elements_lib.SERIES_INSTANCE_UID)
  )


def _images(
  data_set: dataset.DataSet, hasher: privacy.PatientHasher
) -> list[images.Image]:
  elements = data_set.elements
  common = _common(data_set, hasher)
  notes = _notes(elements, data_set.syntax)
  sop_class = common['sop_class']
  if sop_class in elements_lib.MULTI_FRAME_CT:
    frame_groups = functional_groups(elements)
    count = len(frame_groups)
  else:
    frame_groups, count = [elements], 1
  of_file: list[str] = []
  # One layout for all frames: by it the pixel reader knows that the file is the same.
  pixels = _tried(of_file, pixels_lib.layout_of, data_set, count)
  of_file.extend(_kind_problems(common, elements))
  result = []
  for frame, group in enumerate(frame_groups):
    problems = list(of_file)
    plane = _tried(problems, image_values.plane_of, group)
    rescale = _tried(problems, image_values.rescale_of, elements, group, pixels)
    name = data_set.source.name + (f' frame {frame + 1}' if count > 1 else '')
    result.append(
      images.Image(
        name=name,
        frame=frame,
        plane=plane,
        rescale=rescale,
        pixels=pixels,
        problems=tuple(problems),
        notes=notes,
        settings=acquisition_lib.of_image(group, elements),
        **common | _of_frame(group, sop_class),
      )
    )
  return result


def _common(data_set: dataset.DataSet, hasher: privacy.PatientHasher) -> dict[str, Any]:
  """Fields that all frames of a file share."""
  elements = data_set.elements
  text = elements_lib.text
  dates = (elements_lib.iso_date(text(elements, tag)) for tag in _DATES)
  return {
    'study_uid': elements_lib.safe_uid(text(elements, elements_lib.STUDY_INSTANCE_UID)),
    'series_uid': _series_uid(elements),
    'image_uid': elements_lib.safe_uid(text(elements, elements_lib.SOP_INSTANCE_UID)),
    'frame_of_reference': elements_lib.safe_uid(
      text(elements, elements_lib.FRAME_OF_REFERENCE_UID)
    ),
    'patient': hasher.digests(elements),
    'sop_class': text(elements, elements_lib.SOP_CLASS_UID),
    'modality': elements_lib.printable(text(elements, elements_lib.MODALITY).upper()),
    'date': next(filter(None, dates), None),
    'is_picture': _is_picture(elements),
    'part': _concatenation_part(elements),
    'description': privacy.without_patient(
      elements, text(elements, elements_lib.SERIES_DESCRIPTION)
    ),
  }


def _concatenation_part(
  elements: elements_lib.Elements,
) -> images.ConcatenationPart | None:
  uid = elements_lib.text(elements, elements_lib.CONCATENATION_UID)
  if not uid:
    return None
  return images.ConcatenationPart(
    elements_lib.safe_uid(uid),
    elements_lib.unsigned(elements, elements_lib.IN_CONCATENATION_NUMBER, 0),
    elements_lib.unsigned(elements, elements_lib.IN_CONCATENATION_TOTAL_NUMBER, 0),
  )


def _of_frame(group: elements_lib.Elements, sop_class: str) -> dict[str, Any]:
  """Fields that a frame of an enhanced file has for itself."""
  kinds = elements_lib.texts(group, elements_lib.IMAGE_TYPE)
  if sop_class in elements_lib.MULTI_FRAME_CT:
    kinds += elements_lib.texts(group, elements_lib.FRAME_TYPE)
  kernel = '/'.join(elements_lib.texts(group, elements_lib.CONVOLUTION_KERNEL))
  acquisition = elements_lib.text(group, elements_lib.ACQUISITION_NUMBER)
  return {
    'image_type': tuple(map(str.upper, kinds)),
    'kernel': elements_lib.printable(kernel),
    'thickness_mm': elements_lib.decimal_or_none(group, elements_lib.SLICE_THICKNESS),
    'acquisition': elements_lib.printable(acquisition),
    'marks': _marks(group),
  }


def _marks(group: elements_lib.Elements) -> dict[str, str]:
  """What may distinguish an image from another one at the same place."""
  marks = {}
  for keyword, (tag, binary) in elements_lib.MARKS.items():
    if tag not in group:
      continue
    if binary:
      value = elements_lib.binary_text(group, tag, binary)
    else:
      value = '/'.join(elements_lib.texts(group, tag))
    if value:
      marks[keyword] = elements_lib.printable(value, most=64)
  return marks


def _is_picture(elements: elements_lib.Elements) -> bool:
  photometric = elements_lib.text(elements, elements_lib.PHOTOMETRIC_INTERPRETATION)
  try:
    return (
      photometric not in _GREY
      or elements_lib.unsigned(elements, elements_lib.SAMPLES_PER_PIXEL, 1) > 1
      or elements_lib.unsigned(elements, elements_lib.BITS_ALLOCATED, 16) == 8
    )
  except elements_lib.ElementError:
    return False


def _kind_problems(
  common: dict[str, Any], elements: elements_lib.Elements
) -> list[str]:
  """What shows that an image holds no Hounsfield units of one measurement."""
  problems = []
  sop_class, modality = common['sop_class'], common['modality']
  if not sop_class and not modality:
    problems.append('neither SOP Class UID nor Modality says that it is CT')
  elif sop_class and sop_class not in elements_lib.CT_SOP_CLASSES:
    problems.append(
      'CT images are required, its SOP class is '
      f'{elements_lib.sop_class_name(sop_class)}'
    )
  elif modality not in ('', 'CT'):
    problems.append(f"Modality CT is required, found '{modality}'")
  photometric = elements_lib.text(elements, elements_lib.PHOTOMETRIC_INTERPRETATION)
  if photometric not in _GREY:
    problems.append(
      f"grey values are required, found colour '{elements_lib.printable(photometric)}'"
    )
  return problems


def _notes(elements: elements_lib.Elements, syntax: str) -> tuple[str, ...]:
  """Oddities that a person would want to know."""
  notes = []
  if not elements_lib.text(elements, elements_lib.MODALITY):
    notes.append('Modality is missing; the SOP class says CT')
  if not elements_lib.text(elements, elements_lib.SOP_CLASS_UID):
    notes.append('SOP Class UID is missing; the Modality says CT')
  if (
    elements_lib.text(elements, elements_lib.PHOTOMETRIC_INTERPRETATION)
    == 'MONOCHROME1'
  ):
    notes.append('MONOCHROME1 (shown inverted); the HU are taken as they are')
  if syntax == pydicom_uid.JPEGLSNearLossless or (
    elements_lib.text(elements, elements_lib.LOSSY_IMAGE_COMPRESSION) == '01'
  ):
    notes.append('the images were compressed with loss; HU may be off a little')
  return tuple(notes)


# Which study and series a file belongs to, from its header alone.


@dataclasses.dataclass(frozen=True, slots=True)
class FileIdentity:
  """What a listing keeps of a DICOM image; nothing in it names a patient.

  Attributes:
    study_uid, series_uid, image_uid: UIDs, '' if missing.
    modality: 'CT', …; '' if missing.
    whole: False for a file that breaks off or is damaged.
    size: bytes of the file.
  """

  study_uid: str
  series_uid: str
  image_uid: str
  modality: str
  whole: bool
  size: int


def identify(path: str | os.PathLike[str]) -> FileIdentity | None:
  """The identity of a DICOM image; None for anything else.

  Args:
    path: a regular file.

  Returns:
    Of a file with many frames, that of the first.

  Raises:
    OSError: the file cannot be read.
  """
  source = sources.FileSource(pathlib.Path(path))
  found = images_of(source, privacy.PatientHasher())
  if isinstance(found, images.BrokenFile):
    return FileIdentity('', found.series_uid, '', '', False, source.size)
  if not found:
    return None
  first = found[0]
  return FileIdentity(
    first.study_uid,
    first.series_uid,
    first.image_uid,
    first.modality,
    True,
    source.size,
  )

"""From the elements of a header to image records, with what is wrong in words."""

import collections
from collections.abc import Callable, Sequence
import dataclasses
import math
import operator
import os
import pathlib
import re
import struct
from typing import Any, ParamSpec, TypeVar

import numpy as np
from pydicom import uid as pydicom_uid

from covid_tf.readers import acquisition as acquisition_lib
from covid_tf.readers import dataset
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import formats
from covid_tf.readers import images
from covid_tf.readers import pixels as pixels_lib
from covid_tf.readers import privacy
from covid_tf.readers import sources

# Geometry and rescale of one image, each value checked.

# A CT's pixels lie between those of micro-CT and of a 250 cm field of view.
_SPACING_RANGE_MM = (0.05, 5.0)
# Direction cosines written with three decimals are this far from unit vectors.
_DIRECTION_TOLERANCE = 2e-3
# Beyond it a header is damaged: no scanner's coordinate has ten digits.
_FARTHEST_MM = 1e5
_SLOPE_RANGE = (1e-6, 1e4)
_LARGEST_INTERCEPT = 1e6


_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')
# A direction in the patient, (x, y, z).
_Vector = np.ndarray | tuple[float, float, float]


def tried(
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


def image_plane(elements: elements_lib.Elements) -> images.Plane:
  """Position, orientation and pixel spacing of an image.

  Raises:
    ElementError: one of them is missing or cannot be true.
  """
  between_rows, between_columns = elements_lib.decimals(
    elements, elements_lib.PIXEL_SPACING, 2
  )
  if not all(
    _SPACING_RANGE_MM[0] <= step <= _SPACING_RANGE_MM[1]
    for step in (between_rows, between_columns)
  ):
    raise elements_lib.ElementError(
      'Pixel Spacing must lie between 0.05 and 5 mm, found '
      f'{between_rows:g}, {between_columns:g}'
    )
  x, y, z = elements_lib.decimals(elements, elements_lib.IMAGE_POSITION_PATIENT, 3)
  farthest = max(abs(x), abs(y), abs(z))
  if farthest > _FARTHEST_MM:
    raise elements_lib.ElementError(f'Image Position (Patient) is {farthest:g} mm away')
  cosines = elements_lib.decimals(elements, elements_lib.IMAGE_ORIENTATION_PATIENT, 6)
  row, column = _directions(cosines)
  return images.Plane((x, y, z), row, column, (between_rows, between_columns))


def _directions(
  cosines: tuple[float, ...],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
  """Unit vectors of Image Orientation (Patient): along a row, along a column."""
  a, b, c, d, e, f = cosines
  row, column = (a, b, c), (d, e, f)
  lengths = math.hypot(*row), math.hypot(*column)
  product = sum(map(operator.mul, row, column))
  if max(abs(length - 1) for length in lengths) > _DIRECTION_TOLERANCE or (
    abs(product) > _DIRECTION_TOLERANCE
  ):
    raise elements_lib.ElementError(
      'Image Orientation (Patient) must be two perpendicular unit vectors, '
      f'found lengths {lengths[0]:.4g} and {lengths[1]:.4g}, product {product:.4g}'
    )
  along_row, along_column = lengths
  return (
    (a / along_row, b / along_row, c / along_row),
    (d / along_column, e / along_column, f / along_column),
  )


def image_rescale(
  elements: elements_lib.Elements, padding_range: tuple[int, int] | None
) -> images.Rescale:
  """Slope and intercept to Hounsfield units.

  Raises:
    ElementError: missing, not finite, a slope of zero or below, or absurd.
  """
  (slope,) = elements_lib.decimals(elements, elements_lib.RESCALE_SLOPE, 1)
  (intercept,) = elements_lib.decimals(elements, elements_lib.RESCALE_INTERCEPT, 1)
  if not _SLOPE_RANGE[0] <= slope <= _SLOPE_RANGE[1]:
    raise elements_lib.ElementError(
      f'Rescale Slope must be above 0 (1e-6 to 1e4), found {slope:g}'
    )
  if abs(intercept) > _LARGEST_INTERCEPT:
    raise elements_lib.ElementError(
      f'Rescale Intercept of {intercept:g} gives no Hounsfield units'
    )
  return images.Rescale(slope, intercept, padding_range)


def image_padding(
  elements: elements_lib.Elements, pixels: images.PixelLayout | None
) -> tuple[int, int] | None:
  """The stored values that stand for no measurement (PS3.3 C.7.5.1.1.2).

  The VR of the element (US or SS) is often wrong, so the sign is taken from the
  pixels' own representation.
  """
  value = _word(elements, elements_lib.PIXEL_PADDING_VALUE, pixels)
  if value is None:
    return None
  limit = _word(elements, elements_lib.PIXEL_PADDING_RANGE_LIMIT, pixels)
  limit = value if limit is None else limit
  return min(value, limit), max(value, limit)


def _word(
  elements: elements_lib.Elements, tag: int, pixels: images.PixelLayout | None
) -> int | None:
  """A stored value; modulo the word, since its VR may have the other sign."""
  value = elements_lib.raw(elements, tag)
  if not value or pixels is None:
    return None
  found: Sequence[float] | None = elements_lib.binary_numbers(elements, tag)
  if elements[tag].VR in ('IS', 'DS'):
    found = elements_lib.decimals(elements, tag, 1)
  elif found is None and len(value) == 2:
    found = struct.unpack(elements_lib.byte_order(elements, tag) + 'H', value)
  if found is None or len(found) != 1 or not float(found[0]).is_integer():
    raise elements_lib.ElementError(
      f'{elements_lib.described(tag)} has {len(value)} bytes instead of 2'
    )
  bits = 16 if -1 << 15 <= found[0] < 1 << 16 else 32
  word = int(found[0]) % (1 << bits)
  return word - (1 << bits) if pixels.signed and word >> (bits - 1) else word


def angle_deg(first: _Vector, second: _Vector) -> float:
  """Angle between two unit vectors, 0 to 180 degrees."""
  return math.degrees(math.acos(float(np.clip(np.dot(first, second), -1, 1))))


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
# Letters of a Rescale Type that says HU: 'HU', 'H.U.', 'Hounsfield', 'HOUNSFIELD
# UNITS', and GE's 'Houndsfield Unit'.
_HU_TYPE = re.compile('(HOUN[DS]*FIELDS?(UNITS?)?)?(HU)?')
# Defined terms of other units (PS3.3 C.11.1.1.2).
_OTHER_UNITS = frozenset(('OD', 'MGML', 'ZEFF', 'ED', 'EDW', 'HUMOD', 'PCT'))
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
  pixels = tried(of_file, pixels_lib.layout_of, data_set, count)
  of_file.extend(_kind_problems(common, elements))
  result = []
  for frame, group in enumerate(frame_groups):
    problems = list(of_file)
    plane = tried(problems, image_plane, group)
    rescale = tried(problems, _rescale, data_set, group, pixels)
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


def _rescale(
  data_set: dataset.DataSet,
  group: elements_lib.Elements,
  pixels: images.PixelLayout | None,
) -> images.Rescale:
  kind = elements_lib.text(group, elements_lib.RESCALE_TYPE)
  letters = re.sub('[^A-Z]', '', kind.upper())
  if letters in _OTHER_UNITS:
    raise elements_lib.ElementError(
      f"Rescale Type must be HU, found '{elements_lib.printable(kind)}'"
    )
  rescale = image_rescale(group, image_padding(data_set.elements, pixels))
  if not kind or letters and _HU_TYPE.fullmatch(letters):
    return rescale
  return dataclasses.replace(rescale, unit=elements_lib.printable(kind))


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

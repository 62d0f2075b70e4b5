"""From the elements of a header to image records, with what is wrong in words."""

import dataclasses
import re

from pydicom import uid as pydicom_uid

from covid_tf.readers import data_sets
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import fields
from covid_tf.readers import frames
from covid_tf.readers import images
from covid_tf.readers import pixel_layout
from covid_tf.readers import privacy
from covid_tf.readers import sop_classes
from covid_tf.readers import tags
from covid_tf.readers import uids

_DATES = (tags.ACQUISITION_DATE, tags.ACQUISITION_DATE_TIME, tags.SERIES_DATE,
          tags.STUDY_DATE)
# Letters of a Rescale Type that says HU: 'HU', 'H.U.', 'Hounsfield', 'HOUNSFIELD
# UNITS', and GE's 'Houndsfield Unit'.
_HU_TYPE = re.compile('(HOUN[DS]*FIELDS?(UNITS?)?)?(HU)?')
# Defined terms of other units (PS3.3 C.11.1.1.2).
_OTHER_UNITS = frozenset(('OD', 'MGML', 'ZEFF', 'ED', 'EDW', 'HUMOD', 'PCT'))
_GREY = ('', 'MONOCHROME1', 'MONOCHROME2')


def images_of(
    source, hasher: privacy.PatientHasher
) -> list[images.Image] | images.BrokenFile | None:
  """The images of a file as its header describes them; no pixel is read.

  Returns:
    One image, or one a frame of an enhanced file; [] for a DICOM object without
    images; None for a file that is not DICOM; a BrokenFile.
  """
  try:
    data_set = data_sets.read(source)
  except data_sets.NotDicomError:
    return None
  except data_sets.IncompleteError as error:
    return _broken_or_no_image(source, error)
  elements = data_set.elements
  if elements_lib.text(elements, tags.SOP_CLASS_UID) in sop_classes.OVER_A_SERIES:
    return []
  try:
    return _images(data_set, hasher)
  except Exception as error:  # A damaged sequence fails anywhere inside pydicom.
    reason = str(error) if isinstance(error, elements_lib.ElementError) else (
        'its functional groups are damaged')
    return images.BrokenFile(source.name, _series_uid(elements), reason)


def _broken_or_no_image(source, error):
  """Whether a file without pixels lost them or never had any."""
  sop_class = (elements_lib.text(error.elements, tags.SOP_CLASS_UID)
               or error.media_class)
  modality = elements_lib.text(error.elements, tags.MODALITY)
  if sop_class and sop_class not in sop_classes.CT or (
      not sop_class and modality not in ('', 'CT')):
    return []
  return images.BrokenFile(
      source.name, _series_uid(error.elements), str(error), error.remedy)


def _series_uid(elements) -> str:
  return uids.safe(elements_lib.text(elements, tags.SERIES_INSTANCE_UID))


def _images(data_set: data_sets.DataSet, hasher) -> list[images.Image]:
  elements = data_set.elements
  common = _common(data_set, hasher)
  notes = _notes(elements, data_set.syntax)
  sop_class = common['sop_class']
  if sop_class in sop_classes.MULTI_FRAME_CT:
    frame_groups = frames.groups(elements)
    count = len(frame_groups)
  else:
    frame_groups, count = [elements], 1
  result = []
  for frame, group in enumerate(frame_groups):
    problems = []
    pixels = fields.tried(problems, pixel_layout.of, data_set, count)
    problems.extend(_kind_problems(common, elements))
    plane = fields.tried(problems, fields.plane, group)
    rescale = fields.tried(problems, _rescale, data_set, group, pixels)
    name = data_set.source.name + (f' frame {frame + 1}' if count > 1 else '')
    result.append(images.Image(
        name=name, frame=frame, plane=plane, rescale=rescale, pixels=pixels,
        problems=tuple(problems), notes=notes,
        **common | _of_frame(group, sop_class)))
  return result


def _common(data_set, hasher) -> dict:
  """Fields that all frames of a file share."""
  elements = data_set.elements
  text = elements_lib.text
  dates = (uids.iso_date(text(elements, tag)) for tag in _DATES)
  return {
      'study_uid': uids.safe(text(elements, tags.STUDY_INSTANCE_UID)),
      'series_uid': _series_uid(elements),
      'image_uid': uids.safe(text(elements, tags.SOP_INSTANCE_UID)),
      'frame_of_reference': uids.safe(text(elements, tags.FRAME_OF_REFERENCE_UID)),
      'patient': hasher.digests(elements),
      'sop_class': text(elements, tags.SOP_CLASS_UID),
      'modality': elements_lib.printable(text(elements, tags.MODALITY).upper()),
      'date': next(filter(None, dates), None),
      'is_picture': _is_picture(elements),
      'description': privacy.without_patient(
          elements, text(elements, tags.SERIES_DESCRIPTION)),
  }


def _of_frame(group, sop_class: str) -> dict:
  """Fields that a frame of an enhanced file has for itself."""
  kinds = elements_lib.texts(group, tags.IMAGE_TYPE)
  if sop_class in sop_classes.MULTI_FRAME_CT:
    kinds += elements_lib.texts(group, tags.FRAME_TYPE)
  kernel = '/'.join(elements_lib.texts(group, tags.CONVOLUTION_KERNEL))
  acquisition = elements_lib.text(group, tags.ACQUISITION_NUMBER)
  return {
      'image_type': tuple(map(str.upper, kinds)),
      'kernel': elements_lib.printable(kernel),
      'thickness_mm': elements_lib.decimal_or_none(group, tags.SLICE_THICKNESS),
      'acquisition': elements_lib.printable(acquisition),
      'marks': _marks(group),
  }


def _marks(group) -> dict[str, str]:
  """What may tell an image from another one at the same place."""
  marks = {}
  for keyword, (tag, binary) in tags.MARKS.items():
    if tag not in group:
      continue
    if binary:
      value = elements_lib.binary_text(group, tag, binary)
    else:
      value = '/'.join(elements_lib.texts(group, tag))
    if value:
      marks[keyword] = elements_lib.printable(value, most=64)
  return marks


def _is_picture(elements) -> bool:
  photometric = elements_lib.text(elements, tags.PHOTOMETRIC_INTERPRETATION)
  try:
    return (photometric not in _GREY
            or elements_lib.unsigned(elements, tags.SAMPLES_PER_PIXEL, 1) > 1
            or elements_lib.unsigned(elements, tags.BITS_ALLOCATED, 16) == 8)
  except elements_lib.ElementError:
    return False


def _kind_problems(common: dict, elements) -> list[str]:
  """What shows that an image holds no Hounsfield units of one measurement."""
  problems = []
  sop_class, modality = common['sop_class'], common['modality']
  if not sop_class and not modality:
    problems.append('neither SOP Class UID nor Modality says that it is CT')
  elif sop_class and sop_class not in sop_classes.CT:
    problems.append(
        f'CT images are required, its SOP class is {sop_classes.name(sop_class)}')
  elif modality not in ('', 'CT'):
    problems.append(f"Modality CT is required, found '{modality}'")
  photometric = elements_lib.text(elements, tags.PHOTOMETRIC_INTERPRETATION)
  if photometric not in _GREY:
    problems.append('grey values are required, found colour '
                    f"'{elements_lib.printable(photometric)}'")
  return problems


def _rescale(data_set, group, pixels) -> images.Rescale:
  kind = elements_lib.text(group, tags.RESCALE_TYPE)
  letters = re.sub('[^A-Z]', '', kind.upper())
  if letters in _OTHER_UNITS:
    raise elements_lib.ElementError(
        f"Rescale Type must be HU, found '{elements_lib.printable(kind)}'")
  rescale = fields.rescale(group, fields.padding(data_set.elements, pixels))
  if not kind or letters and _HU_TYPE.fullmatch(letters):
    return rescale
  return dataclasses.replace(rescale, unit=elements_lib.printable(kind))


def _notes(elements, syntax: str) -> tuple[str, ...]:
  """Oddities that a person would want to know."""
  notes = []
  if not elements_lib.text(elements, tags.MODALITY):
    notes.append('Modality is missing; the SOP class says CT')
  if not elements_lib.text(elements, tags.SOP_CLASS_UID):
    notes.append('SOP Class UID is missing; the Modality says CT')
  if elements_lib.text(elements, tags.PHOTOMETRIC_INTERPRETATION) == 'MONOCHROME1':
    notes.append('MONOCHROME1 (shown inverted); the HU are taken as they are')
  if syntax == pydicom_uid.JPEGLSNearLossless or (
      elements_lib.text(elements, tags.LOSSY_IMAGE_COMPRESSION) == '01'):
    notes.append('the images were compressed with loss; HU may be off a little')
  return tuple(notes)

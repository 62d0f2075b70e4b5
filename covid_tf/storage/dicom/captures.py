"""Secondary captures: key pictures for archives that show images and nothing else.

Each is a series of its own, like every other object of a result: archives list series,
so that each picture has a thumbnail and a name of its own.
"""

from collections.abc import Iterator, Sequence

import highdicom
from highdicom import sc
import pydicom
from pydicom.sr import codedict

from covid_tf import results
from covid_tf import version
from covid_tf.storage.dicom import identity
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

# By the converter, the time would be that of the export: two exports never were equal.
_CLOCK = ('DateOfSecondaryCapture', 'TimeOfSecondaryCapture')
_COMMENT = 'Research use only. Made by software, unverified.'


def secondary_captures(
  source: source_lib.SourceSeries,
  result: results.CaseResult,
  pictures: Sequence[objects.KeyPicture],
) -> Iterator[tuple[identity.Kind, pydicom.Dataset]]:
  """The pictures as Secondary Capture images, uncompressed.

  Args:
    source: the series that was scored.
    result: the scored study.
    pictures: without anything that names the patient.

  Yields:
    Kind (with the file's name) and object of each picture, with its final UIDs.
  """
  for number, picture in enumerate(pictures, start=1):
    kind = identity.Kind(
      identity.PICTURES.file_name.format(number),
      identity.PICTURES.series_number + number - 1,
      f'covid-tf picture: {picture.title}',
    )
    with identity.quietly():
      yield kind, _capture(source, result, picture, kind, number)


def _capture(
  source: source_lib.SourceSeries,
  result: results.CaseResult,
  picture: objects.KeyPicture,
  kind: identity.Kind,
  number: int,
) -> pydicom.Dataset:
  header = source.headers[0]
  made = sc.SCImage(
    pixel_array=picture.pixels,
    photometric_interpretation=highdicom.PhotometricInterpretationValues.RGB,
    bits_allocated=8,
    coordinate_system=highdicom.CoordinateSystemNames.PATIENT,
    patient_orientation=('L', 'P'),  # One must be given; set below.
    study_instance_uid=header.StudyInstanceUID,
    patient_id=header.PatientID,
    patient_name=header.PatientName,
    patient_birth_date=header.PatientBirthDate,
    patient_sex=header.PatientSex or None,
    accession_number=header.AccessionNumber,
    study_id=header.StudyID,
    study_date=header.StudyDate,
    study_time=header.StudyTime,
    referring_physician_name=header.ReferringPhysicianName,
    contributing_equipment=identity.equipment(result),
    **identity.options(source, result, kind, number),
  )
  made.copy_patient_and_study_information(header)
  _describe(made, source, result, picture)
  identity.finish(made)
  return made


def _describe(
  made: pydicom.Dataset,
  source: source_lib.SourceSeries,
  result: results.CaseResult,
  picture: objects.KeyPicture,
) -> None:
  """What the picture shows, of which images, and that it names nobody."""
  for keyword in _CLOCK:
    delattr(made, keyword)
  # Empty: directions differ within the picture, or it has none.
  made.PatientOrientation = list(picture.orientation) if picture.orientation else None
  made.BodyPartExamined = 'CHEST'
  # Of patient and date, as the standard asks: other words are burned in.
  made.BurnedInAnnotation = made.RecognizableVisualFeatures = 'NO'
  made.LossyImageCompression = source.headers[0].get('LossyImageCompression', '00')
  made.SecondaryCaptureDeviceManufacturer = identity.MANUFACTURER
  made.SecondaryCaptureDeviceManufacturerModelName = identity.MODEL_NAME
  made.SecondaryCaptureDeviceSoftwareVersions = version.SOFTWARE
  demo = 'DEMO MODELS: no measurement of a patient. ' if result.demo_models else ''
  made.ImageComments = f'{demo}{_COMMENT}'
  made.DerivationDescription = picture.description
  made.SourceImageSequence = [
    _with_purpose(item) for item in source.references(picture.slices or None)
  ]


def _with_purpose(item: pydicom.Dataset) -> pydicom.Dataset:
  purpose = codedict.codes.DCM.SourceImageForImageProcessingOperation
  code = pydicom.Dataset()
  code.CodeValue, code.CodeMeaning = purpose.value, purpose.meaning
  code.CodingSchemeDesignator = purpose.scheme_designator
  item.PurposeOfReferenceCodeSequence = [code]
  return item

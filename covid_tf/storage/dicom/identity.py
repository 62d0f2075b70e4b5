"""What makes an object this one: its UIDs, names, dates, and who contributed.

A UID is derived from all bytes of the object beside it. So equal content has one
identity however often it is exported, and other content another: an archive keeps the
first object of a UID and drops what comes later under the same one without a word.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import json
from typing import Any
import warnings

import highdicom
from highdicom import coding_schemes as coding_schemes_lib
import pydicom
from pydicom import filebase
from pydicom import filewriter
from pydicom import uid
from pydicom.sr import codedict

from covid_tf import results
from covid_tf import version
from covid_tf.storage import result_json
from covid_tf.storage.dicom import codes
from covid_tf.storage.dicom import source as source_lib

MANUFACTURER = 'covid-tf project'
MODEL_NAME = 'covid-tf'
# Type 1 of the Enhanced General Equipment module; software has no serial number.
SERIAL_NUMBER = 'none'
# Of a source whose header holds no date at all: no date of a CT.
NO_DATE, NO_TIME = '19000101', '000000'

_PENDING = uid.UID('2.25.0')  # Stands for UIDs until the content is whole.
# Hashed as they are: a copy for the writer would double the memory.
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
# The clock of the export: two exports would never be equal.
_CLOCK = ('InstanceCreationDate', 'InstanceCreationTime', 'ContributionDateTime')


@dataclasses.dataclass(frozen=True)
class Kind:
  """One of the objects that a result becomes; each is a series of its own.

  Attributes:
    file_name: in the folder `dicom` of a result.
    series_number: the same for all studies.
    description: Series Description.
  """

  file_name: str
  series_number: int
  description: str


SEGMENTATION = Kind('segmentation.dcm', 9901, 'covid-tf lungs and model attention')
PARAMETRIC_MAP = Kind('parametric_map.dcm', 9902, 'covid-tf model attention map')
REPORT = Kind('report.dcm', 9903, 'covid-tf measurements')
PICTURES = Kind('picture_{:02d}.dcm', 9904, 'covid-tf key pictures')


def derived_uid(*parts: str | bytes) -> uid.UID:
  """The UID of some content: 2.25 and 128 bits of its digest (PS3.5 B.2)."""
  digest = hashlib.sha256()
  for part in parts:
    data = part.encode() if isinstance(part, str) else part
    digest.update(len(data).to_bytes(8, 'big'))
    digest.update(data)
  return uid.UID(f'2.25.{int.from_bytes(digest.digest()[:16], "big")}')


def tracking(
  source: source_lib.SourceSeries, result: results.CaseResult, name: str
) -> tuple[str, uid.UID]:
  """(Tracking ID, Tracking UID) of what is measured, the same in all objects.

  Args:
    source: the series.
    result: the scored study.
    name: of the region: 'lungs', 'model attention', ….
  """
  # Sorted: a result that was stored and read again is the same one.
  text = json.dumps(result_json.to_dict(result), sort_keys=True)
  return f'{MODEL_NAME} {name}', derived_uid(source.series_uid, text, name)


def options(
  source: source_lib.SourceSeries,
  result: results.CaseResult,
  kind: Kind,
  instance_number: int = 1,
) -> dict[str, Any]:
  """Arguments that the constructors of all of highdicom's objects share.

  The UIDs among them stand in until `finish`.
  """
  date, time = content_moment(source)
  demo = ' (DEMO MODELS)' if result.demo_models else ''
  return {
    'series_instance_uid': _PENDING,
    'sop_instance_uid': _PENDING,
    'series_number': kind.series_number,
    'instance_number': instance_number,
    'manufacturer': MANUFACTURER,
    'manufacturer_model_name': MODEL_NAME,
    'software_versions': version.SOFTWARE,
    'device_serial_number': SERIAL_NUMBER,
    'series_description': kind.description + demo,
    'content_date': date,
    'content_time': time,
    'series_date': date,
    'series_time': time,
    'specific_character_set': source_lib.UTF_8,
  }


def content_moment(source: source_lib.SourceSeries) -> tuple[str, str]:
  """(date, time) that objects carry: those of the CT's acquisition.

  Not of the export, or exporting twice would give two objects; and not of the
  analysis, which no result records. Of the first slice's acquisition, else content,
  series or study date; NO_DATE where there is none.
  """
  header = source.headers[0]
  for of_what in ('Acquisition', 'Content', 'Series', 'Study'):
    if date := header.get(f'{of_what}Date'):
      return str(date), str(header.get(f'{of_what}Time') or NO_TIME)
  return NO_DATE, NO_TIME


def coding_schemes() -> list[coding_schemes_lib.CodingSchemeIdentificationItem]:
  """The declaration of the private scheme, for objects that use a code of it."""
  item = coding_schemes_lib.CodingSchemeIdentificationItem(
    codes.SCHEME,
    name=codes.SCHEME_NAME,
    version=codes.SCHEME_VERSION,
    responsible_organization=codes.SCHEME_ORGANIZATION,
  )
  item.CodingSchemeUID = codes.SCHEME_UID  # highdicom: with a registry only.
  return [item]


def equipment(result: results.CaseResult) -> list[highdicom.ContributingEquipment]:
  """The software that scored the study, and the models with the digests of cards."""
  demo = 'DEMO MODELS, trained on phantoms: no measurement of a patient. '
  scored = highdicom.ContributingEquipment(
    MANUFACTURER,
    codedict.codes.DCM.ProcessingEquipment,
    manufacturer_model_name=MODEL_NAME,
    software_versions=result.software[:64],
    contribution_description=(
      demo * result.demo_models + 'Software that scored the study. Research use only.'
    ),
  )
  return [scored] + [
    highdicom.ContributingEquipment(
      MANUFACTURER,
      codedict.codes.DCM.ProcessingEquipment,
      manufacturer_model_name=f'{MODEL_NAME} model {model.name}'[:64],
      software_versions=f'{model.name} {model.version}'[:64],
      device_serial_number=model.card_sha256[:64],
      contribution_description=(
        f'Model {model.name}, version {model.version}; SHA-256 of its card: '
        f'{model.card_sha256}'
      ),
    )
    for model in result.models
  ]


def algorithm(result: results.CaseResult) -> highdicom.AlgorithmIdentificationSequence:
  """What made the regions: package, its version, thresholds and models."""
  thresholds = result.thresholds
  parameters = {
    'slice_probability': f'{thresholds.slice_probability:g}',
    'map': f'{thresholds.map:g}',
  }
  for model in result.models:
    parameters[model.name] = f'{model.version} {model.card_sha256}'
  return highdicom.AlgorithmIdentificationSequence(
    MODEL_NAME,
    codes.ARTIFICIAL_INTELLIGENCE,
    result.software[:64],
    source=MANUFACTURER,
    parameters=parameters,
  )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
  """Silences what libraries warn of: their texts quote names of patients."""
  with warnings.catch_warnings(action='ignore'):
    yield


def finish(dataset: pydicom.Dataset) -> None:
  """Gives an object its UIDs, derived from all else that it holds.

  Args:
    dataset: a whole object with a file meta header, made with `options`; changed.
  """
  _drop_clock(dataset)
  _set_dimension_uid(dataset, _PENDING)
  dataset.SOPInstanceUID = dataset.SeriesInstanceUID = _PENDING
  content = _digest(dataset)
  dataset.SOPInstanceUID = derived_uid(content, 'instance')
  dataset.SeriesInstanceUID = derived_uid(content, 'series')
  _set_dimension_uid(dataset, derived_uid(content, 'dimensions'))
  dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _drop_clock(dataset: pydicom.Dataset) -> None:
  items = [dataset, *dataset.get('ContributingEquipmentSequence', ())]
  for item in items:
    for keyword in _CLOCK:
      if keyword in item:
        delattr(item, keyword)


def _set_dimension_uid(dataset: pydicom.Dataset, value: uid.UID) -> None:
  for keyword in ('DimensionOrganizationSequence', 'DimensionIndexSequence'):
    for item in dataset.get(keyword, ()):
      item.DimensionOrganizationUID = value


def _digest(dataset: pydicom.Dataset) -> bytes:
  """SHA-256 of an object's elements, and of how its pixels are encoded."""
  plain = pydicom.Dataset()
  digest = hashlib.sha256(str(dataset.file_meta.TransferSyntaxUID).encode())
  for tag in dataset.keys():
    element = dataset[tag]
    if int(tag) in _PIXELS:
      digest.update(memoryview(element.value))
    else:
      plain.add(element)
  with filebase.DicomBytesIO() as buffer:
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    filewriter.write_dataset(buffer, plain)
    digest.update(buffer.getvalue())
  return digest.digest()

"""Whether a PACS has kept what was sent: storage commitment, or fetched back, compared.

A PACS that answers success and forgets is found out here.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import pathlib
import tempfile

import numpy as np
import pydicom
from pydicom import datadict
from pydicom import dataelem
from pydicom import dataset as dataset_lib

from covid_tf import errors
from covid_tf.clinic import pacs
from covid_tf.readers import decoding

# What a PACS may change on its own (PS3.4 B.4.1.3, IHE Patient Information
# Reconciliation): who the patient is, how the order is called, how it keeps the object.
COERCIBLE = frozenset(
  (
    'AccessionNumber',
    'AdmissionID',
    'EthnicGroup',
    'InstanceAvailability',
    'InstanceCoercionDateTime',
    'InstitutionAddress',
    'InstitutionName',
    'IssuerOfAccessionNumberSequence',
    'IssuerOfPatientID',
    'IssuerOfPatientIDQualifiersSequence',
    'ModifiedAttributesSequence',
    'NameOfPhysiciansReadingStudy',
    'OriginalAttributesSequence',
    'OtherPatientIDs',
    'OtherPatientIDsSequence',
    'OtherPatientNames',
    'PatientAge',
    'PatientBirthDate',
    'PatientBirthTime',
    'PatientComments',
    'PatientID',
    'PatientName',
    'PatientSex',
    'PatientSize',
    'PatientWeight',
    'PhysiciansOfRecord',
    'ProcedureCodeSequence',
    'ReferencedPatientSequence',
    'ReferencedStudySequence',
    'ReferringPhysicianIdentificationSequence',
    'ReferringPhysicianName',
    'RequestAttributesSequence',
    'RetrieveAETitle',
    'RetrieveURL',
    'SpecificCharacterSet',
    'StudyDate',
    'StudyDescription',
    'StudyID',
    'StudyTime',
    'TimezoneOffsetFromUTC',
    'TypeOfPatientID',
  )
)
_PIXELS = ('PixelData', 'FloatPixelData', 'DoubleFloatPixelData')
# Fit how the pixels are encoded, which a PACS may change without loss.
_OF_ENCODING = frozenset(
  (
    'DataSetTrailingPadding',
    'EncapsulatedPixelDataValueTotalLength',
    'ExtendedOffsetTable',
    'ExtendedOffsetTableLengths',
    *_PIXELS,
  )
)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One instance as it was sent and as a PACS has it; names of attributes, no values.

  Attributes:
    differing: attributes that a PACS must not change.
    changed: attributes that it changed and may (`COERCIBLE`).
  """

  differing: tuple[str, ...]
  changed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Verification:
  """What is known about all instances.

  Attributes:
    method: 'storage commitment' or 'fetched back and compared'.
    faults: in words, one for each instance that is not kept as it was sent.
    changed: names of attributes that the PACS changed and may.
  """

  method: str
  faults: tuple[str, ...] = ()
  changed: tuple[str, ...] = ()

  @property
  def is_kept(self) -> bool:
    """Whether all is there as it was sent."""
    return not self.faults


def verify(archive: pacs.Archive, instances: Sequence[pacs.Instance]) -> Verification:
  """Asks whether instances of one study, which were sent, are kept.

  Args:
    archive: the PACS.
    instances: what was sent and not refused.

  Raises:
    errors.PACSError: it cannot be asked.
    errors.OutputError: what is fetched back has no place on the disk.
  """
  commitment = archive.commit(instances)
  if commitment is not None:
    return Verification(
      'storage commitment', tuple(_not_committed(commitment, instances))
    )
  return _fetched_back(archive, instances)


def _not_committed(
  commitment: pacs.Commitment, instances: Sequence[pacs.Instance]
) -> Iterator[str]:
  for instance in instances:
    uid = instance.sop_instance_uid
    if uid in commitment.refused:
      yield f'{instance.name}: not committed: {commitment.refused[uid]}'
    elif uid not in commitment.committed:
      yield f'{instance.name}: not committed: the report does not name it'


def _fetched_back(
  archive: pacs.Archive, instances: Sequence[pacs.Instance]
) -> Verification:
  faults: list[str] = []
  changed: set[str] = set()
  study_uid = instances[0].study_uid
  for series_uid in sorted({instance.series_uid for instance in instances}):
    sent = [each for each in instances if each.series_uid == series_uid]
    listed = archive.find(study_uid, series_uid)
    known = {each.sop_instance_uid for each in listed}
    faults += [
      f'{instance.name}: the PACS does not have it under its study and series'
      for instance in sent
      if instance.sop_instance_uid not in known
    ]
    if known.isdisjoint(each.sop_instance_uid for each in sent):
      continue
    for instance, comparison in _compared(archive, sent, listed):
      changed.update(comparison.changed)
      if comparison.differing:
        faults.append(
          f'{instance.name}: kept with other values of '
          f'{", ".join(comparison.differing[:8])}'
        )
  return Verification(
    'fetched back and compared', tuple(faults), tuple(sorted(changed))
  )


def _compared(
  archive: pacs.Archive,
  sent: Sequence[pacs.Instance],
  listed: Sequence[pacs.Listed],
) -> Iterator[tuple[pacs.Instance, Comparison]]:
  """Fetches a series and compares what was sent of it."""
  try:
    with tempfile.TemporaryDirectory() as folder:
      receiver = pacs.Receiver(pathlib.Path(folder), listed)
      archive.retrieve(sent[0].study_uid, sent[0].series_uid, receiver)
      if receiver.failure:
        raise receiver.failure
      for instance in sent:
        if path := receiver.paths.get(instance.sop_instance_uid):
          yield instance, compare(instance.path, path)
        elif instance.sop_instance_uid in receiver.listed:
          yield instance, Comparison(('all (listed, but not sent back)',), ())
  except OSError as error:
    raise errors.OutputError(
      f'{tempfile.gettempdir()}: what is fetched back to be compared cannot be '
      f'written: {error.strerror}; free some space, or set TMPDIR.'
    ) from error


def compare(sent: pathlib.Path, kept: pathlib.Path) -> Comparison:
  """Compares two files: UIDs, decoded pixels and every attribute but private ones.

  Args:
    sent: as it was sent.
    kept: as the PACS has it.
  """
  before, after = pydicom.dcmread(sent), pydicom.dcmread(kept)
  different = set(_different(before, after))
  if not _same_pixels(before, after):
    different.add('PixelData')
  return Comparison(
    tuple(sorted(different - COERCIBLE)), tuple(sorted(different & COERCIBLE))
  )


def _different(
  before: dataset_lib.Dataset, after: dataset_lib.Dataset
) -> Iterator[str]:
  """Keywords, or tags, of what differs at the top level."""
  tags = {tag for tag in (*before.keys(), *after.keys()) if not tag.is_private}
  for tag in tags:
    keyword = datadict.keyword_for_tag(tag) or str(tag)
    if tag.element == 0 or keyword in _OF_ENCODING:
      continue
    if not _same(before.get(tag), after.get(tag)):
      yield keyword


def _same(
  before: dataelem.DataElement | None, after: dataelem.DataElement | None
) -> bool:
  """Whether two elements say the same; an empty one says as much as none."""
  left = None if before is None or before.is_empty else before.value
  right = None if after is None or after.is_empty else after.value
  if left is None or right is None:
    return left is right
  if before is not None and after is not None and before.VR == after.VR == 'SQ':
    return len(left) == len(right) and all(
      not list(_different(one, other)) for one, other in zip(left, right)
    )
  if isinstance(left, bytes) and isinstance(right, bytes):
    return left.rstrip(b'\0') == right.rstrip(b'\0')  # Padding to an even length.
  if isinstance(left, str) and isinstance(right, str):
    return left.rstrip(' \0') == right.rstrip(' \0')
  return bool(left == right)


def _same_pixels(before: dataset_lib.Dataset, after: dataset_lib.Dataset) -> bool:
  found = [
    next((key for key in _PIXELS if key in each), '') for each in (before, after)
  ]
  if found[0] != found[1]:
    return False
  if not found[0]:
    return True
  syntaxes = {each.file_meta.TransferSyntaxUID for each in (before, after)}
  if before[found[0]].value == after[found[0]].value and len(syntaxes) == 1:
    return True
  try:
    with decoding.silent_c_library():
      return bool(
        np.array_equal(before.pixel_array, after.pixel_array, equal_nan=False)
      )
  except Exception:  # Whatever a decoder meets: what cannot be read is not the same.
    return False

"""Objects on disk to a PACS: what is sent, and what became of each instance."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import os
import pathlib

import pydicom
from pydicom import errors as pydicom_errors

from covid_tf import errors
from covid_tf.clinic import pacs
from covid_tf.readers import elements
from covid_tf.readers import formats
from covid_tf.readers import privacy

_OBJECTS = 'dicom'  # Folder of a result with its DICOM objects.
_RESULT = 'result.json'


@dataclasses.dataclass(frozen=True)
class Sending:
  """What became of all instances.

  Attributes:
    answers: one for each instance, in the order in which they were sent.
  """

  answers: tuple[pacs.StoreAnswer, ...]

  def of(self, outcome: pacs.Outcome) -> tuple[pacs.StoreAnswer, ...]:
    """The answers of one kind."""
    return tuple(answer for answer in self.answers if answer.outcome is outcome)

  @property
  def is_complete(self) -> bool:
    """Whether all instances are stored, with a warning or without."""
    return not self.of(pacs.Outcome.FAILED)


def send(
  instances: Iterable[pacs.Instance],
  archive: pacs.Archive,
  on_answer: Callable[[pacs.StoreAnswer], None] = lambda answer: None,
) -> Sending:
  """Sends instances of one study.

  Args:
    instances: of `read_instances`.
    archive: the PACS.
    on_answer: called for each instance, when the PACS has answered.

  Raises:
    errors.PACSError: the PACS cannot be reached, refuses the association or request,
      or was lost for too long. What was answered before is stored.
  """
  return Sending(archive.store(tuple(instances), on_answer))


def read_instances(path: str | os.PathLike[str]) -> tuple[pacs.Instance, ...]:
  """The DICOM files of a result, a folder, or one file; all of one study and patient.

  Args:
    path: a folder that `covid-tf score --dicom` wrote (its folder `dicom`), a folder
      of DICOM files, or one DICOM file.

  Raises:
    errors.UsageError: there are none.
    errors.StudyRefusedError: a file is damaged or without UIDs; files are of several
      studies or patients, or two have one SOP Instance UID.
  """
  place = pathlib.Path(path)
  of_result = place.joinpath(_RESULT).is_file()
  folder = place / _OBJECTS if place.joinpath(_OBJECTS).is_dir() else place
  if of_result and folder is place:
    raise errors.UsageError(
      f'{place}: DICOM objects in its folder {_OBJECTS} are required, found none; make '
      'them with `covid-tf score --dicom` or, from this result, `covid-tf dicom`.'
    )
  files = sorted(_files(folder))
  ours = folder is not place
  instances = tuple(_instance(file, ours) for file in files)
  if not instances:
    raise errors.UsageError(
      f'{place}: a result with DICOM objects, a folder of DICOM files or one DICOM '
      'file is required, found no DICOM file.'
    )
  _require_one_study(instances)
  return instances


def _files(place: pathlib.Path) -> Iterator[pathlib.Path]:
  """DICOM files at a place and below but DICOMDIR; no links to folders followed."""
  if place.is_file():
    if formats.is_dicom_file(place):
      yield place
    return
  if not place.is_dir():
    raise errors.UsageError(
      f'{place}: a folder or a DICOM file is required, found nothing that can be read.'
    )
  for root, folders, names in os.walk(place):
    folders.sort()
    for name in sorted(names):
      file = pathlib.Path(root, name)
      # Opening a pipe would wait for ever.
      if file.is_file() and name != 'DICOMDIR' and formats.is_dicom_file(file):
        yield file


def _instance(file: pathlib.Path, ours: bool) -> pacs.Instance:
  try:
    header = pacs.read_header(file)
    size = file.stat().st_size
  except pydicom_errors.InvalidDicomError:
    raise errors.StudyRefusedError(
      f'{file}: a whole DICOM file is required, found a damaged one.'
    ) from None
  except OSError as error:
    raise errors.UsageError(
      f'{file}: a readable file is required, found: {error.strerror}.'
    ) from error
  for keyword in ('class', 'instance', 'study', 'series', 'syntax'):
    if not elements.legal_uid(header[keyword]):
      raise errors.StudyRefusedError(
        f'{file}: UIDs of class, instance, study, series and transfer syntax are '
        f'required, found none or an illegal one of its {keyword}.'
      )
  # Names of other people's files may hold a patient's.
  kind = pacs.class_name(header['class'])
  return pacs.Instance(
    path=file,
    name=file.name if ours else f'{kind} {header["instance"]}',
    sop_class_uid=header['class'],
    sop_instance_uid=header['instance'],
    study_uid=header['study'],
    series_uid=header['series'],
    transfer_syntax_uid=header['syntax'],
    size_bytes=size,
  )


def _require_one_study(instances: tuple[pacs.Instance, ...]) -> None:
  studies = sorted({instance.study_uid for instance in instances})
  if len(studies) > 1:
    raise errors.StudyRefusedError(
      f'instances of one study are required, found {len(studies)} studies: '
      f'{", ".join(studies[:3])}; send each from a folder of its own.'
    )
  seen: set[str] = set()
  for instance in instances:
    if instance.sop_instance_uid in seen:
      raise errors.StudyRefusedError(
        f'{instance.path}: a SOP Instance UID of its own is required, found one that '
        f'another file has too: {instance.sop_instance_uid}; a PACS would keep one of '
        'the two. Remove copies.'
      )
    seen.add(instance.sop_instance_uid)
  hasher = privacy.PatientHasher()
  digests = [_patient(instance.path, hasher) for instance in instances]
  if privacy.differ(digests, one_study=True):
    raise errors.StudyRefusedError(
      'instances of one patient are required, found several patients in one study; '
      'correct the files first.'
    )


def _patient(
  file: pathlib.Path, hasher: privacy.PatientHasher
) -> privacy.PatientDigests:
  found = pydicom.dcmread(
    file, stop_before_pixels=True, specific_tags=list(privacy.TAGS)
  )
  return hasher.digests(
    {tag: found.get_item(tag) for tag in privacy.TAGS if tag in found}
  )

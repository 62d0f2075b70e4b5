"""Results of a node as `batch --dicom` leaves them, and a destination in memory."""

from collections.abc import Callable, Sequence
import pathlib

import odd_series

from covid_tf.batch import records
from covid_tf.clinic import pacs
from covid_tf.storage import files

NAMES = ('parametric_map.dcm', 'report.dcm', 'segmentation.dcm')


def write_result(
  output: pathlib.Path,
  key: str,
  *,
  status: str = records.SCORED,
  generation: int = 1,
  names: Sequence[str] = NAMES,
) -> list[str]:
  """Puts a result in its place, as the batch engine does: an earlier one goes.

  Args:
    output: of the node.
    key: of the study, also its Study Instance UID.
    status: of its record.
    generation: another one has other objects and another fingerprint.
    names: of its objects.

  Returns:
    The SOP Instance UIDs of its objects.
  """
  slices = odd_series.series(study_uid=key)[: len(names)]
  with files.replacing_directory(records.studies_folder(output) / key) as folder:
    (folder / 'result.json').write_text('{}')
    (folder / 'dicom').mkdir()
    for number, (name, data) in enumerate(zip(names, slices), 1):
      data.SOPInstanceUID = f'{key}.{generation}.{number}'
      data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
      odd_series.save_one(data, folder / 'dicom' / name)
    records.write_record(folder, record(key, status, f'images {generation}'))
  return [str(data.SOPInstanceUID) for data in slices]


def record(
  key: str, status: str = records.SCORED, fingerprint: str = 'images 1'
) -> records.Record:
  """A record without a measure."""
  empty = dict.fromkeys(
    (
      'corona_score_cm3',
      'involved_lung_fraction',
      'lung_volume_cm3',
      'case_detected',
      'slice_count',
    )
  )
  return records.Record(
    key=key,
    status=status,
    reason='',
    study_uid=key,
    series_uid=f'{key}.9',
    warnings=0,
    seconds=1.0,
    host='here',
    finished='2026-11-29T10:00:00Z',
    configuration='models 1',
    fingerprint=fingerprint,
    **empty,  # type: ignore[arg-type]
  )


class Destination:
  """A PACS in memory; change its attributes before it is asked.

  Attributes:
    arrived: SOP Instance UIDs in the order in which they came, with repetitions.
    answer: instance to (outcome, status, reason).
    failure: raised by whatever it is asked, or None.
    finds: whether it offers to be asked for what it has.
    asked: how often it was asked for what it has.
    attempts: how often somebody tried to send.
    before_answer: called with each instance that has arrived, before it is answered.
  """

  name = 'FAKE@pacs:104'

  def __init__(self) -> None:
    self.arrived: list[str] = []
    self.answer: Callable[[pacs.Instance], tuple] = lambda instance: (
      pacs.Outcome.STORED,
      0,
      '',
    )
    self.failure: Exception | None = None
    self.finds = True
    self.asked = self.attempts = 0
    self.before_answer: Callable[[pacs.Instance], None] = lambda instance: None

  def store(self, instances, on_answer):
    self.attempts += 1
    if self.failure:
      raise self.failure
    answers = []
    for instance in instances:
      outcome, status, reason = self.answer(instance)
      if outcome is not pacs.Outcome.FAILED:
        self.arrived.append(instance.sop_instance_uid)
      self.before_answer(instance)
      answers.append(pacs.StoreAnswer(instance, outcome, status, reason))
      on_answer(answers[-1])
    return tuple(answers)

  def find(self, study_uid, series_uid=None):
    self.asked += 1
    if self.failure:
      self.attempts += 1
      raise self.failure
    if not self.finds:
      raise pacs.errors.PACSError(f'{self.name}: it does not offer it.')
    return tuple(
      pacs.Listed(study_uid, f'{study_uid}.9', uid)
      for uid in dict.fromkeys(self.arrived)
      if uid.startswith(f'{study_uid}.')
    )


def away() -> pacs.errors.PACSError:
  """What a client raises for a PACS that is away, of one attempt."""
  error = pacs.errors.PACSError('FAKE@pacs:104: cannot be reached: refused.')
  error.__cause__ = pacs.TransientError(str(error))
  return error

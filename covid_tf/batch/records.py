"""What became of a study: one record.json in its result folder."""

from collections.abc import Iterator
import dataclasses
import json
import os
import pathlib

from covid_tf.reports import result_json

FILE_NAME = 'record.json'

SCORED = 'scored'
REFUSED = 'refused'  # The study cannot be measured; it would be refused again.
FAILED = 'failed'  # A model, a worker or the machine failed; tried again next time.
UNWRITTEN = 'unwritten'  # The output took no more; never stored.


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
  """What became of one study; one row of the manifest.

  Attributes:
    key: name of the result folder below `studies/`.
    status: SCORED, REFUSED, FAILED or UNWRITTEN.
    reason: why there is no score; '' with one.
    study_uid, series_uid: DICOM UIDs; '' where there are none.
    corona_score_cm3, involved_lung_fraction, lung_volume_cm3, case_detected,
      slice_count: of the result; None without one.
    warnings: how many the result carries.
    seconds: spent on reading, models and writing.
    host: name of the machine.
    finished: UTC, 'YYYY-MM-DDTHH:MM:SSZ'.
    configuration: digest of models, thresholds and software.
    fingerprint: digest of the study's images.
  """

  key: str
  status: str
  reason: str
  study_uid: str
  series_uid: str
  corona_score_cm3: float | None
  involved_lung_fraction: float | None
  lung_volume_cm3: float | None
  case_detected: bool | None
  slice_count: int | None
  warnings: int
  seconds: float
  host: str
  finished: str
  configuration: str
  fingerprint: str


FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def studies_folder(output: str | os.PathLike) -> pathlib.Path:
  """Where the result folders of an archive lie, one a study."""
  return pathlib.Path(output) / 'studies'


def write(folder: str | os.PathLike, record: Record) -> None:
  """Writes a record into a result folder that has not got its name yet."""
  text = json.dumps(dataclasses.asdict(record), allow_nan=False, indent=0)
  pathlib.Path(folder, FILE_NAME).write_text(f'{text}\n', 'utf-8')


def read(folder: str | os.PathLike) -> Record | None:
  """Reads the record of a result folder.

  Returns:
    The record; None where there is none that can be trusted: no file, another
    layout, or a score without its result.json.
  """
  folder = os.fspath(folder)
  try:
    with open(os.path.join(folder, FILE_NAME), 'rb') as file:
      record = Record(**json.loads(file.read()))
  except (OSError, ValueError, TypeError):
    return None
  if record.key != os.path.basename(folder):
    return None
  if record.status == SCORED and not os.path.exists(
      os.path.join(folder, result_json.FILE_NAME)):
    return None
  return record


def read_all(output: str | os.PathLike) -> Iterator[Record]:
  """Yields the records of all result folders, in order of key."""
  root = studies_folder(output)
  try:
    names = sorted(os.listdir(root))
  except FileNotFoundError:
    return
  for name in names:
    # A name with a dot in front is still being written, or was when it stopped.
    if not name.startswith('.') and (record := read(root / name)):
      yield record

"""What became of each study: record.json beside it, and manifest.csv over all."""

from collections.abc import Iterable, Iterator, Mapping, Set
import csv
import dataclasses
import errno
import io
import json
import os
import pathlib

from covid_tf import errors
from covid_tf import process_end
from covid_tf.storage import files
from covid_tf.storage import result_json

# What became of a study: one record.json in its result folder.

RECORD_FILE = 'record.json'

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
    manufacturer, model, kernel, kvp, slice_thickness_mm, slice_distance_mm,
      contrast: of the result's acquisition; None where it states none, and in
      earlier records.
    zone_score, zone_score_by_density, mean_lung_density_hu, ground_glass_share,
      consolidation_share, low_attenuation_share: of the whole lungs; None without a
      result, and in earlier records.
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
  manufacturer: str | None = None
  model: str | None = None
  kernel: str | None = None
  kvp: float | None = None
  slice_thickness_mm: float | None = None
  slice_distance_mm: float | None = None
  contrast: bool | None = None
  zone_score: int | None = None
  zone_score_by_density: int | None = None
  mean_lung_density_hu: float | None = None
  ground_glass_share: float | None = None
  consolidation_share: float | None = None
  low_attenuation_share: float | None = None


FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def studies_folder(output: str | os.PathLike) -> pathlib.Path:
  """Where the result folders of an archive lie, one a study."""
  return pathlib.Path(output) / 'studies'


def write_record(folder: str | os.PathLike, record: Record) -> None:
  """Writes a record into a result folder that has not got its name yet."""
  text = json.dumps(dataclasses.asdict(record), allow_nan=False, indent=0)
  pathlib.Path(folder, RECORD_FILE).write_text(f'{text}\n', 'utf-8')


def read_record(folder: str | os.PathLike) -> Record | None:
  """Reads the record of a result folder.

  Returns:
    The record; None where there is none that can be trusted: no file, another
    layout, or a score without its result.json.
  """
  folder = os.fspath(folder)
  try:
    with open(os.path.join(folder, RECORD_FILE), 'rb') as file:
      record = Record(**json.loads(file.read()))
  except (OSError, ValueError, TypeError):
    return None
  if record.key != os.path.basename(folder):
    return None
  if record.status == SCORED and not os.path.exists(
    os.path.join(folder, result_json.FILE_NAME)
  ):
    return None
  return record


def read_records(output: str | os.PathLike) -> Iterator[Record]:
  """Yields the records of all result folders, in order of key."""
  root = studies_folder(output)
  try:
    names = sorted(os.listdir(root))
  except FileNotFoundError:
    return
  for name in names:
    # A name with a dot in front is still being written, or was when it stopped.
    if not name.startswith('.') and (record := read_record(root / name)):
      yield record


# manifest.csv: one row a study, appended as studies end, made anew at any time.

MANIFEST_FILE = 'manifest.csv'


def rebuild_manifest(output: str | os.PathLike) -> dict[str, Record]:
  """Writes the manifest anew from the records of the result folders.

  Whatever happened to the file, half a last line or a row twice, is repaired.

  Args:
    output: the folder of the archive's results.

  Returns:
    Key of a study to its record.

  Raises:
    errors.OutputError: it cannot be written.
  """
  found = {record.key: record for record in read_records(output)}
  write_manifest(pathlib.Path(output) / MANIFEST_FILE, found.values())
  return found


def start_manifest(
  output: str | os.PathLike, stored: Mapping[str, Record], still_open: Set[str]
) -> None:
  """Writes the manifest that a run appends to: one row for each study once.

  Args:
    output: the folder of the archive's results.
    stored: key to record, of earlier runs.
    still_open: keys of studies that this run works on, and so will append.

  Raises:
    errors.OutputError: it cannot be written.
  """
  write_manifest(
    pathlib.Path(output) / MANIFEST_FILE,
    (record for key, record in stored.items() if key not in still_open),
  )


def write_manifest(path: str | os.PathLike, rows: Iterable[Record]) -> None:
  """Replaces a manifest.

  Raises:
    errors.OutputError: it cannot be written.
  """
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(FIELDS)
      writer.writerows(map(_values, rows))


class Appender:
  """Adds a row for each study that ends; a context manager."""

  def __init__(self, output: str | os.PathLike):
    """Opens the manifest, which `rebuild` has made.

    Raises:
      errors.OutputError: it cannot be opened for writing.
    """
    self._path = pathlib.Path(output) / MANIFEST_FILE
    try:
      # Unbuffered: a row is in the file or not; a kill leaves none in memory.
      self._file = open(self._path, 'ab', buffering=0)
    except OSError as error:
      raise self._explained(error) from error

  def __enter__(self) -> 'Appender':
    return self

  def __exit__(self, *exception) -> None:
    self._file.close()

  def append(self, record: Record) -> None:
    """Adds one row.

    Raises:
      errors.OutputError: no space; the next start mends the file.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerow(_values(record))
    row = text.getvalue().encode()
    try:
      written = self._file.write(row)
      if written < len(row):  # A disk that fills up takes what fits, without an error.
        self._file.truncate(self._file.tell() - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
      raise self._explained(error) from error

  def _explained(self, error: OSError) -> errors.OutputError:
    return errors.OutputError(
      f'{self._path}: cannot be written ({error.strerror}); the results are whole, '
      'and the manifest is made anew at the next start.'
    )


class Manifest:
  """The manifest of an output to which studies come without an end; a context manager.

  A study that ends again has its row replaced: each has one.
  """

  def __init__(self, output: str | os.PathLike):
    """Makes it anew from the records of the result folders.

    Raises:
      errors.OutputError: it cannot be written.
    """
    self._output = output
    self._rows = rebuild_manifest(output)
    self._end_of_file = Appender(output)

  def __enter__(self) -> 'Manifest':
    return self

  def __exit__(self, *exception) -> None:
    self._end_of_file.__exit__()

  def put(self, record: Record) -> None:
    """Adds a row or replaces it; a failure does not take the place of a score.

    Raises:
      errors.OutputError: no space; the next start mends the file.
    """
    earlier = self._rows.get(record.key)
    if earlier is None:
      self._end_of_file.append(record)
    elif record.status == FAILED and earlier.status in (SCORED, FAILED):
      return
    self._rows[record.key] = record
    if earlier is not None:
      self._write()

  def drop(self, keys: Iterable[str]) -> None:
    """Takes rows out, of results that are not there any more.

    Raises:
      errors.OutputError: no space; the next start mends the file.
    """
    if found := self._rows.keys() & set(keys):
      for key in found:
        del self._rows[key]
      self._write()

  def _write(self) -> None:
    write_manifest(pathlib.Path(self._output) / MANIFEST_FILE, self._rows.values())
    self._end_of_file.__exit__()  # Of the file that was replaced.
    self._end_of_file = Appender(self._output)


def _values(record: Record) -> list:
  values = dataclasses.asdict(record)
  for name, value in values.items():
    if isinstance(value, bool):
      values[name] = str(value).lower()
    # A cell that starts like a formula is one to a spreadsheet.
    elif isinstance(value, str) and value.startswith(('=', '+', '-', '@')):
      values[name] = ' ' + value
  return [values[name] for name in FIELDS]


# A study that has no end of its own: its workers died, or its function raised.

# Of one study: twice may be bad luck, three times is the study.
MOST_DEATHS = 3


@dataclasses.dataclass(frozen=True)
class Lost:
  """What an engine reports of a study that it gave up.

  Attributes:
    reason: why, for people.
  """

  reason: str


def lost_by_deaths(exit_code: int | None = None) -> Lost:
  """Of a study whose workers died again and again.

  Args:
    exit_code: of the last of them; None if it is not known, as on a cluster.
  """
  return Lost(
    f'its worker process died {MOST_DEATHS} times and {process_end.how(exit_code)} '
    f'the last time: {process_end.remedy(exit_code)}; or read the study alone with '
    'covid-tf inspect.'
  )

"""manifest.csv: one row a study, appended as studies end, made anew at any time."""

from collections.abc import Iterable, Mapping, Set
import csv
import dataclasses
import errno
import io
import os
import pathlib

from covid_tf import errors
from covid_tf import files
from covid_tf.batch import records

FILE_NAME = 'manifest.csv'


def rebuild(output: str | os.PathLike) -> dict[str, records.Record]:
  """Writes the manifest anew from the records of the result folders.

  Whatever happened to the file, a torn last line or a row twice, is mended.

  Args:
    output: the folder of the archive's results.

  Returns:
    Key of a study to its record.

  Raises:
    errors.OutputError: it cannot be written.
  """
  found = {record.key: record for record in records.read_all(output)}
  write(pathlib.Path(output) / FILE_NAME, found.values())
  return found


def start(
    output: str | os.PathLike, stored: Mapping[str, records.Record],
    still_open: Set[str]) -> None:
  """Writes the manifest that a run appends to: one row for each study once.

  Args:
    output: the folder of the archive's results.
    stored: key to record, of earlier runs.
    still_open: keys of studies that this run works on, and so will append.

  Raises:
    errors.OutputError: it cannot be written.
  """
  write(pathlib.Path(output) / FILE_NAME, (
      record for key, record in stored.items() if key not in still_open))


def write(path: str | os.PathLike, rows: Iterable[records.Record]) -> None:
  """Replaces a manifest.

  Raises:
    errors.OutputError: it cannot be written.
  """
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(records.FIELDS)
      writer.writerows(map(_values, rows))


class Appender:
  """Adds a row for each study that ends; a context manager."""

  def __init__(self, output: str | os.PathLike):
    """Opens the manifest, which `rebuild` has made.

    Raises:
      errors.OutputError: it cannot be opened for writing.
    """
    self._path = pathlib.Path(output) / FILE_NAME
    try:
      # Unbuffered: a row is in the file or not; a kill leaves none in memory.
      self._file = open(self._path, 'ab', buffering=0)
    except OSError as error:
      raise self._explained(error) from error

  def __enter__(self) -> 'Appender':
    return self

  def __exit__(self, *exception) -> None:
    self._file.close()

  def append(self, record: records.Record) -> None:
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
        'and the manifest is made anew at the next start.')


def _values(record: records.Record) -> list:
  values = dataclasses.asdict(record)
  # A cell that starts like a formula is one to a spreadsheet.
  if values['reason'].startswith(('=', '+', '-', '@')):
    values['reason'] = ' ' + values['reason']
  if values['case_detected'] is not None:
    values['case_detected'] = str(values['case_detected']).lower()
  return [values[name] for name in records.FIELDS]

"""A CSV file as rows of named cells, or a refusal that says which row."""

import csv
import dataclasses
import pathlib

from covid_tf import errors

_SEPARATORS = (',', ';', '\t')


@dataclasses.dataclass(frozen=True)
class TableRow:
  """One row of a table.

  Attributes:
    number: as a spreadsheet counts it, the header being row 1.
    cells: column name to text, without the spaces around it.
  """

  number: int
  cells: dict[str, str]


def read_table(
    path: pathlib.Path | str, required: tuple[str, ...],
    optional: tuple[str, ...] = ()) -> tuple[TableRow, ...]:
  """Reads a comma-separated file with a header.

  A byte order mark, Windows line ends, spaces around a cell, wholly blank rows
  and columns of other names are all taken as they come from spreadsheets. So are
  semicolons or tabs between the cells, where they alone make the header's names.

  Args:
    path: the CSV file, in UTF-8.
    required: columns that must be there.
    optional: columns that may be there; a missing one reads as blank cells.

  Returns:
    The rows below the header, in the file's order.

  Raises:
    errors.UsageError: no such file, not UTF-8 text, not comma-separated, a
      required column missing or there twice, a row of another length, no rows.
  """
  records = _records(path, required)
  header = [name.strip().casefold() for name in records[0]] if records else []
  _check_header(path, header, required, optional)
  rows = []
  for number, record in enumerate(records[1:], start=2):
    cells = [cell.strip() for cell in record]
    if not any(cells):
      continue
    if len(cells) != len(header):
      raise errors.UsageError(
          f'{path}, row {number}: {len(header)} cells are required, as in the '
          f'header, found {len(cells)}; put quotes around a cell that holds what '
          'parts the cells.')
    named = dict(zip(header, cells))
    rows.append(TableRow(
        number, {name: named.get(name, '') for name in required + optional}))
  if not rows:
    raise errors.UsageError(f'{path}: at least one row below the header is required.')
  return tuple(rows)


def _records(
    path: pathlib.Path | str, required: tuple[str, ...]) -> list[list[str]]:
  try:
    # utf-8-sig: Excel puts a byte order mark before the first column's name.
    with open(path, encoding='utf-8-sig', newline='') as file:
      separator = _separator(file.readline(), required)
      file.seek(0)
      return list(csv.reader(
          file, delimiter=separator, skipinitialspace=True, strict=True))
  except OSError as error:
    raise errors.UsageError(
        f'{path}: a readable CSV file is required: {error.strerror}.') from error
  except UnicodeDecodeError as error:
    raise errors.UsageError(
        f'{path}: UTF-8 text is required, found other bytes; save the table as '
        '"CSV UTF-8".') from error
  except csv.Error as error:
    raise errors.UsageError(
        f'{path}: comma-separated text is required: {error}.') from error


def _separator(first_line: str, required: tuple[str, ...]) -> str:
  """What parts the cells: Excel writes semicolons where a comma is the decimal mark."""
  def names(separator: str) -> set[str]:
    cells = next(csv.reader(
        [first_line], delimiter=separator, skipinitialspace=True), ())
    return {cell.strip().casefold() for cell in cells}

  return next((separator for separator in _SEPARATORS
               if names(separator).issuperset(required)), _SEPARATORS[0])


def _check_header(
    path: pathlib.Path | str, header: list[str], required: tuple[str, ...],
    optional: tuple[str, ...]) -> None:
  missing = [name for name in required if name not in header]
  if missing:
    raise errors.UsageError(
        f'{path}: a header with the columns {", ".join(required)} is required, '
        f'missing: {", ".join(missing)}.')
  twice = [name for name in required + optional if header.count(name) > 1]
  if twice:
    raise errors.UsageError(
        f'{path}: each column may appear once, found twice: {", ".join(twice)}.')

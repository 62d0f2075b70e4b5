"""Tables that people write, as rows of named cells, or a refusal that names the row.

The one reader for labels, known kinds, lists of paths and label files of collections,
and for our own lists of shards. (A run reads its own log in `training/logs.py`.)
Spreadsheets differ in separator, encoding, decimal mark and how they write a truth
value; all of them give the same rows. What a spreadsheet has destroyed (a UID that
became a number) is refused, and no message repeats a cell that may be a patient's ID.
"""

from collections.abc import Iterator, Sequence
import csv
import dataclasses
import io
import os
import pathlib
import re
import textwrap
import zipfile

from covid_tf import errors

_SEPARATORS = (',', ';', '\t')
# Excel's own first line, which it does not show: `sep=;`.
_SEPARATOR_LINE = re.compile(
  r'"?sep=([^\w\s"]|\t)?"?[,;\t ]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE
)
_LINE_END = re.compile(r'\r\n|\r|\n')
_SAVE_AS_TEXT = 'save the table as "CSV UTF-8"'
_TRUTH = {'true': True, 'yes': True, 'false': False, 'no': False}
_ZERO_OR_ONE = re.compile(r'([01])([.,]0+)?')
# Excel keeps 15 digits of a number: longer ones end in zeros or in a power of ten.
_POWER_OF_TEN = re.compile(r'\d+([.,]\d+)?[eE]\+\d+')
_ROUNDED = re.compile(r'(?=\d{20})\d{1,17}0{3,}([.,]0+)?')
# Keeps a cell text in every spreadsheet: ="1.2.840".
_TEXT_FORMULA = re.compile(r'="(.*)"', re.DOTALL)
_QUOTES = ('"', "'")
_OLE_MAGIC = bytes.fromhex('d0cf11e0a1b11ae1')  # Of .xls and other old documents.


@dataclasses.dataclass(frozen=True)
class TableRow:
  """One row of a table.

  Attributes:
    number: as a spreadsheet counts it, the first row being 1; a `sep=` line does not
      count.
    cells: column name to text, without the spaces around it.
    separator: what separates the cells of the file.
  """

  number: int
  cells: dict[str, str]
  separator: str = ','

  def decimal(self, name: str) -> float:
    """A cell's number.

    A decimal comma is one where the separator is not a comma. Between tabs, `1,500`
    may be either; it is refused.

    Raises:
      ValueError: it is no number.
    """
    text = self.cells[name]
    if self.separator == ';' or (
      self.separator == '\t' and not re.search(r',\d{3}$', text)
    ):
      text = text.replace(',', '.')
    return float(text)


def read_table(
  path: pathlib.Path | str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[TableRow, ...]:
  """Reads a table with a header.

  Taken as they come from spreadsheets: commas, semicolons or tabs between the cells,
  and any character that a first line such as `sep=|` states; UTF-8 with or without a
  byte order mark, and UTF-16 ("Unicode text"); line ends of all systems; names of
  columns in any case, with spaces or hyphens in place of underscores; spaces around
  cells and quotes; `="text"`; blank rows; blank columns at the end; columns of other
  names.

  Args:
    path: the file.
    required: columns that must be there.
    optional: columns that may be there; a missing one reads as blank cells.

  Returns:
    The rows below the header, in the file's order.

  Raises:
    errors.UsageError: no such file, a spreadsheet's own format, other text, a
      required column missing or there twice, a row of another length, no rows.
  """
  return tuple(parse(path, read_text(path), required, optional))


def parse(
  path: pathlib.Path | str,
  text: str,
  required: tuple[str, ...],
  optional: tuple[str, ...] = (),
  *,
  is_list: bool = False,
) -> Iterator[TableRow]:
  """Yields the rows of a table's text, one in memory at a time.

  Args:
    path: names the file in refusals.
    text: as `read_text` gives it.
    required: columns that must be there.
    optional: columns that may be there; a missing one reads as blank cells.
    is_list: the table is a list of paths: a row may end early, and refusals may
      quote the header, since no cell is a patient's ID.

  Yields:
    The rows below the header, in the file's order.

  Raises:
    errors.UsageError: as of `read_table`, once the wrong row is reached.
  """
  separator, body = _separator(text, required)
  records = _records(path, body, separator)
  _, header = next(records, (1, []))
  columns = _columns(path, header, required, optional, quotes=is_list)
  number = None
  for number, record in records:
    if not _fits(record, header, is_list):
      raise errors.UsageError(
        f'{path}, row {number}: {len(header)} cells are required, as in the '
        f'header, found {len(record)}; put quotes around a cell that holds the '
        'separator.'
      )
    yield TableRow(
      number,
      {
        name: record[place] if place is not None and place < len(record) else ''
        for name, place in columns.items()
      },
      separator,
    )
  if number is None:
    raise errors.UsageError(
      f'{path}: at least one row below the header is required, found none; if it '
      f'has some, {_SAVE_AS_TEXT}.'
    )


def has_header(text: str, required: tuple[str, ...]) -> bool:
  """Whether a text's first row names these columns, with any separator."""
  separator, body = _separator(text, required)
  return {_loose(name) for name in required} <= _names(body, separator)


def read_lines(text: str) -> list[str]:
  """The lines of a text that are not blank, without the spaces around them."""
  return [line for line in map(str.strip, _LINE_END.split(text)) if line]


def path_of(text: str, folder: pathlib.Path) -> pathlib.Path:
  """A path as people write it: in quotes, from their home (~) or from a folder on.

  Args:
    text: a cell or a line.
    folder: where relative paths begin.
  """
  path = folder / text
  if not text.startswith(('~', *_QUOTES)) or os.path.lexists(path):
    return path
  if len(text) > 2 and text[0] == text[-1] and text[0] in _QUOTES:
    text = text[1:-1].strip()
  return folder / os.path.expanduser(text)


def truth(text: str) -> bool | None:
  """What 1, 0, 1.0, 0.0, TRUE, FALSE, yes and no say in any case; None for others."""
  if match := _ZERO_OR_ONE.fullmatch(text):
    return match[1] == '1'
  return _TRUTH.get(text.casefold())


def uid_problem(name: str, text: str) -> str | None:
  """What is wrong with the cell of a UID if a spreadsheet has made it a number.

  2,25E+38, 1.2E+55 and 225000000000000000000000.00 are such.

  Args:
    name: of the column.
    text: of the cell.
  """
  if not _became_a_number(text):
    return None
  return (
    f'{name} is required as text, found {text}: a spreadsheet has turned the '
    'UID into a number; format the column as text and fill it in again'
  )


def patient_problem(name: str, text: str) -> str | None:
  """As `uid_problem` of a patient's ID, which it does not repeat.

  Rounded IDs of several patients would become one patient.
  """
  if not _became_a_number(text):
    return None
  return (
    f'{name} is required as text, found a rounded number: a spreadsheet has '
    'turned the ID into it; format the column as text and fill it in again'
  )


def read_text(path: pathlib.Path | str, remedy: str = _SAVE_AS_TEXT) -> str:
  """Reads text in UTF-8 or, as Excel's "Unicode text", in UTF-16.

  Args:
    path: the file.
    remedy: what to do if it is something else, for the refusal.

  Raises:
    errors.UsageError: no such file, a spreadsheet's own format, or other bytes.
  """
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise errors.UsageError(
      f'{path}: a readable CSV file is required: {error.strerror}'
      f'{_workbook_beside(pathlib.Path(path))}.'
    ) from error
  if kind := _document(data):
    raise errors.UsageError(
      f'{path}: a CSV file is required, found {kind}; open it and save it as CSV '
      '("CSV UTF-8").'
    )
  encoding = _encoding(data)
  try:
    text = data.decode(encoding)
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b'\n') + 1
    raise errors.UsageError(
      f'{path}: UTF-8 text is required, found other bytes in line {line}; {remedy}.'
    ) from None
  if '\0' in text:
    raise errors.UsageError(
      f'{path}: UTF-8 text is required, found zero bytes; {remedy}.'
    )
  return text


def _became_a_number(text: str) -> bool:
  return bool(_POWER_OF_TEN.fullmatch(text) or _ROUNDED.fullmatch(text))


def _workbook_beside(path: pathlib.Path) -> str:
  """Words about a workbook of a missing file's name; blank if there is none."""
  found = [
    path.with_suffix(suffix).name
    for suffix in ('.xlsx', '.xls', '.ods')
    if path.suffix != suffix and path.with_suffix(suffix).is_file()
  ]
  if path.exists() or not found:
    return ''
  return f'; save {found[0]}, which lies beside it, as CSV ("CSV UTF-8")'


def _encoding(data: bytes) -> str:
  if data.startswith((b'\xff\xfe', b'\xfe\xff')):
    return 'utf-16'
  if len(data) % 2 == 0 and len(data) > 2:
    # Without a mark: of Latin letters every second byte is zero.
    if data[0] and not data[1] and data[2]:
      return 'utf-16-le'
    if not data[0] and data[1] and not data[2]:
      return 'utf-16-be'
  return 'utf-8-sig'


def _document(data: bytes) -> str | None:
  """What a file is in words if it is a spreadsheet's own format, or an archive."""
  if data.startswith(_OLE_MAGIC):
    return 'an Excel workbook (.xls)'
  if data.startswith(b'PK'):
    try:
      with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
    except zipfile.BadZipFile:
      names = []
    if any(name.startswith('xl/') for name in names):
      return 'an Excel workbook (.xlsx)'
    if 'content.xml' in names:
      return 'an OpenDocument spreadsheet (.ods)'
    return 'a zip archive'
  if data.startswith(b'\x1f\x8b'):
    return 'a gzip archive'
  if re.match(rb'\s*<(!doctype|html|\?xml|table)\b', data[:200], re.IGNORECASE):
    return 'a page of HTML or XML, which some programs save under other names'
  return None


def _separator(text: str, required: Sequence[str]) -> tuple[str, str]:
  """(separator, text below a `sep=` line): the one that makes the header's names.

  Excel writes semicolons where a comma is the decimal mark.
  """
  candidates: tuple[str, ...] = _SEPARATORS
  text = text.removeprefix('\ufeff')
  if match := _SEPARATOR_LINE.match(text):
    text = text[match.end() :]
    candidates = (match[1] or ',', *_SEPARATORS)
  wanted = {_loose(name) for name in required}
  return next(
    (separator for separator in candidates if wanted <= _names(text, separator)),
    candidates[0],
  ), text


def _names(text: str, separator: str) -> set[str]:
  """Names of the first row that is not blank, read with a separator."""
  try:
    # A header has no more than this; the whole text is long.
    _, header = next(_records('', text[: 1 << 16], separator), (0, []))
  except errors.UsageError:
    return set()
  return {_loose(name) for name in header}


def _records(
  path: pathlib.Path | str, text: str, separator: str
) -> Iterator[tuple[int, list[str]]]:
  """(row number, cells) of the rows that are not blank."""
  if '" ' in text:
    text = _without_spaces_behind_quotes(text, separator)
  # newline='': line ends within quotes stay, and all others end a row.
  reader = csv.reader(
    io.StringIO(text, newline=''),
    delimiter=separator,
    skipinitialspace=True,
    strict=True,
  )
  number = 0
  while True:
    number += 1
    try:
      record = next(reader, None)
    except csv.Error as error:
      raise errors.UsageError(
        f'{path}, row {number}: cells separated by {_NAMES.get(separator, separator)}'
        f' are required: {error}; check the quotes of the row.'
      ) from None
    if record is None:
      return
    cells = [_plain(cell) for cell in record]
    if any(cells):
      yield number, cells


_NAMES = {',': 'commas', ';': 'semicolons', '\t': 'tabs'}


def _without_spaces_behind_quotes(text: str, separator: str) -> str:
  """`"a" ,b` as `"a",b`, which alone the csv module reads."""
  cell = r' *"[^"]*(?:""[^"]*)*"'
  return re.sub(rf'((?:^|(?<=[\r\n])|{re.escape(separator)}){cell}) *', r'\1', text)


def _plain(cell: str) -> str:
  cell = cell.strip()
  if cell.startswith('="') and (match := _TEXT_FORMULA.fullmatch(cell)):
    return match[1].strip()
  return cell


def _loose(name: str) -> str:
  """A column's name without case, spaces, underscores and hyphens."""
  return re.sub(r'[\s_-]+', '', name).casefold()


def _columns(
  path: pathlib.Path | str,
  header: list[str],
  required: Sequence[str],
  optional: Sequence[str],
  quotes: bool,
) -> dict[str, int | None]:
  """Wanted name to its place in the header; None where it is missing.

  A name spelled as wanted comes before one that differs by a space or so.
  """
  exact = [name.casefold() for name in header]
  loose = [_loose(name) for name in header]
  columns, twice = {}, []
  for name in (*required, *optional):
    places = [place for place, found in enumerate(exact) if found == name] or [
      place for place, found in enumerate(loose) if found == _loose(name)
    ]
    columns[name] = places[0] if places else None
    if len(places) > 1:
      twice.append(name)
  missing = [name for name in required if columns[name] is None]
  if missing:
    found = f'{len(header)} column(s)'
    if quotes:
      found = textwrap.shorten(', '.join(filter(None, header)), 200)
    word = 'a column' if len(required) == 1 else 'columns'
    raise errors.UsageError(
      f'{path}: a header with {word} named {", ".join(required)} is required, '
      f'missing: {", ".join(missing)}; found {found if header else "no columns"}.'
    )
  if twice:
    raise errors.UsageError(
      f'{path}: each column may appear once, found twice: {", ".join(twice)}.'
    )
  return columns


def _fits(record: list[str], header: list[str], is_list: bool) -> bool:
  """Whether a row has the header's cells.

  A header with blank cells at its end leaves open how many of them a row has.
  """
  if len(record) == len(header):
    return True
  named = max(place for place, name in enumerate(header, start=1) if name)
  if len(record) > named:
    return (is_list or named < len(header)) and not any(record[named:])
  return is_list or len(record) == named

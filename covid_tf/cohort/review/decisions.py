"""review.csv: which results a person accepted or rejected, written and read back."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
import csv
import dataclasses
import io
import pathlib
import posixpath
import re

from covid_tf import errors
from covid_tf.storage import tables

FILE_NAME = 'review.csv'
ACCEPTED, REJECTED = 'accepted', 'rejected'
NO_REASON = 'no reason given'
_COLUMNS = ('result', 'decision', 'comment', 'corona_score_cm3', 'doubts')
_MOST_PROBLEMS = 10
# What a spreadsheet takes for a number or a date, and writes back as another.
_LOOKS_LIKE_A_NUMBER = re.compile(r'\d+([.,/-]\d+){0,2}([eE][+-]?\d+)?')


@dataclasses.dataclass(frozen=True)
class Decision:
  """What a person decided about one result.

  Attributes:
    decision: ACCEPTED, REJECTED, or '': not reviewed.
    comment: the person's, or ''.
  """

  decision: str
  comment: str = ''


@dataclasses.dataclass(frozen=True)
class Review:
  """The decisions about the results of one archive.

  Attributes:
    path: the file that they were read from.
    decisions: folder of each result below the archive, with forward slashes ('.': the
      archive is itself one), to the decision; every result is in it.
  """

  path: pathlib.Path
  decisions: Mapping[str, Decision]

  def rejected(self) -> dict[str, str]:
    """Folder to reason of what was rejected."""
    return {
      folder: made.comment or NO_REASON
      for folder, made in self.decisions.items()
      if made.decision == REJECTED
    }

  def counts(self) -> dict[str, int]:
    """How many were accepted, rejected and not reviewed."""
    found = Counter(made.decision for made in self.decisions.values())
    return {
      ACCEPTED: found[ACCEPTED],
      REJECTED: found[REJECTED],
      'not reviewed': found[''],
    }

  def reasons(self) -> dict[str, int]:
    """Reason to number of results rejected for it, the most frequent first."""
    return dict(Counter(self.rejected().values()).most_common())

  def messages(self) -> tuple[str, ...]:
    """What a reader of the remaining results must know."""
    counts = self.counts()
    messages = []
    if counts[REJECTED]:
      reasons = '; '.join(f'{reason}: {n}' for reason, n in self.reasons().items())
      messages.append(
        f'Results rejected in review and left out: {counts[REJECTED]} of '
        f'{len(self.decisions)} ({reasons}).'
      )
    if counts['not reviewed']:
      messages.append(
        f'Results not reviewed: {counts["not reviewed"]} of {len(self.decisions)}; '
        'they are taken.'
      )
    return tuple(messages)


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the template.

  Attributes:
    folder: of the result below the archive, with forward slashes.
    made: the decision so far.
    corona_score_cm3: of the result.
    doubts: the reasons to look again, as one text.
  """

  folder: str
  made: Decision
  corona_score_cm3: float
  doubts: str


def template(rows: Iterable[Row]) -> bytes:
  """review.csv: a line a result, for a person to fill in, as UTF-8 for spreadsheets."""
  text = io.StringIO(newline='')
  writer = csv.writer(text)
  writer.writerow(_COLUMNS)
  for row in rows:
    writer.writerow(
      (
        _as_text(row.folder),
        row.made.decision,
        row.made.comment,
        f'{row.corona_score_cm3:.4g}',
        row.doubts,
      )
    )
  return text.getvalue().encode('utf-8-sig', 'surrogateescape')


def _as_text(name: str) -> str:
  return f'="{name}"' if _LOOKS_LIKE_A_NUMBER.fullmatch(name) else name


def read_review(path: pathlib.Path | str, folders: Collection[str]) -> Review:
  """Reads a review.csv that a person filled in.

  Args:
    path: the file: a table with the columns result, decision and, if there are any
      comments, comment; others are ignored.
    folders: of all results, as `Review.decisions` names them. One without a row is not
      reviewed.

  Raises:
    errors.UsageError: it is no such table, or names results that are not there, names
      one twice, or holds other decisions; names the rows.
  """
  path = pathlib.Path(path)
  decisions: dict[str, Decision] = {}
  first_row: dict[str, int] = {}
  problems = []
  for row in tables.read_table(path, ('result', 'decision'), ('comment',)):
    folder = _folder(row.cells['result'], folders)
    decision = row.cells['decision'].casefold()
    if folder is None:
      problem = f'no result in a folder {row.cells["result"]!r}'
    elif folder in first_row:
      problem = f'{folder!r} again, after row {first_row[folder]}'
    elif decision not in ('', ACCEPTED, REJECTED):
      problem = f'the decision {row.cells["decision"]!r}'
    else:
      decisions[folder] = Decision(decision, row.cells['comment'])
      first_row[folder] = row.number
      continue
    problems.append(f'row {row.number}: {problem}')
  if problems:
    more = len(problems) - _MOST_PROBLEMS
    raise errors.UsageError(
      f'{path}: each result once, by its folder, and {ACCEPTED}, {REJECTED} or a blank '
      f'are required, found {"; ".join(problems[:_MOST_PROBLEMS])}'
      f'{f"; and {more} more" if more > 0 else ""}; correct the rows, or write a new '
      'table with covid-tf review.'
    )
  blank = Decision('')
  return Review(
    path, {folder: decisions.get(folder, blank) for folder in sorted(folders)}
  )


def _folder(text: str, folders: Collection[str]) -> str | None:
  """The result that a cell names, however it writes the path."""
  for name in (text, text.replace('\\', '/')):
    if name and posixpath.normpath(name) in folders:
      return posixpath.normpath(name)
  return None

"""What the destination has of each result: one file a result, `sent/KEY.json`.

The file is written before the first object goes out and again after each answer, so
that a process which was killed in between knows what may have arrived. Objects of
earlier results of the same study stay listed: they are still at the destination.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import datetime
import enum
import json
import logging
import os
import pathlib
from typing import Any

from covid_tf.batch import records
from covid_tf.clinic import pacs
from covid_tf.storage import files

_log = logging.getLogger(__name__)

FOLDER = 'sent'
_FORMAT = 1  # Raised when a file changes its meaning; others count as damaged.


class State(enum.Enum):
  """What is known of an object."""

  BEGUN = 'begun'  # May have arrived: the destination is asked before it is repeated.
  STORED = 'stored'
  WARNING = 'stored with a warning'
  REJECTED = 'rejected'

  @property
  def is_final(self) -> bool:
    """Whether it is not sent again by itself."""
    return self is not State.BEGUN


@dataclasses.dataclass(frozen=True)
class Answer:
  """What is known of one object.

  Attributes:
    sop_instance_uid: of the object.
    file_name: in the folder `dicom` of the result.
    result: identity of the result that it belongs to (`identity`).
    state: what is known.
    status: DIMSE status or failure reason; None where there is none.
    reason: in words; '' where nothing is to be said.
    destination: address that it was sent to.
    time: of this state, UTC, 'YYYY-MM-DDTHH:MM:SSZ'.
  """

  sop_instance_uid: str
  file_name: str
  result: str
  state: State
  status: int | None = None
  reason: str = ''
  destination: str = ''
  time: str = ''


@dataclasses.dataclass(frozen=True)
class Sent:
  """What is known of all objects of a study, of its present result and earlier ones.

  Attributes:
    key: name of the result folder.
    study_uid: Study Instance UID.
    answers: SOP Instance UID to what is known, in the order in which they began.
    ended: identity of the last result of which every object has a final answer; ''
      for none.
    is_damaged: whether the file was there and could not be understood: all objects
      may have arrived.
  """

  key: str
  study_uid: str
  answers: Mapping[str, Answer] = dataclasses.field(default_factory=dict)
  ended: str = ''
  is_damaged: bool = False

  def having(self, new: Iterable[Answer]) -> 'Sent':
    """The same with other or further answers, each given the time of now."""
    now = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
    stamped = {
      each.sop_instance_uid: dataclasses.replace(each, time=now) for each in new
    }
    return dataclasses.replace(self, answers={**self.answers, **stamped})

  def without(self, sop_instance_uids: Iterable[str]) -> 'Sent':
    """The same, with objects that count as never sent; so no result has ended."""
    gone = frozenset(sop_instance_uids)
    kept = {uid: each for uid, each in self.answers.items() if uid not in gone}
    return dataclasses.replace(self, answers=kept, ended='')

  def belonging(self, result: str, instances: Iterable[pacs.Instance]) -> 'Sent':
    """The same, with the answers about instances given to a result."""
    uids = frozenset(each.sop_instance_uid for each in instances)
    return dataclasses.replace(
      self,
      answers={
        uid: dataclasses.replace(each, result=result) if uid in uids else each
        for uid, each in self.answers.items()
      },
    )

  def rejected_of(self, result: str) -> tuple[Answer, ...]:
    """What the destination did not take of a result."""
    return tuple(
      each
      for each in self.answers.values()
      if each.result == result and each.state is State.REJECTED
    )


def identity(record: records.Record) -> str:
  """What distinguishes a result from earlier and later ones of its study."""
  return f'{record.configuration} {record.fingerprint} {record.finished}'


def folder(output: str | os.PathLike[str]) -> pathlib.Path:
  """Where the files lie."""
  return pathlib.Path(output) / FOLDER


def read(output: str | os.PathLike[str], record: records.Record) -> Sent:
  """Reads what is known of a study; nothing, where nothing was begun."""
  path = folder(output) / f'{record.key}.json'
  try:
    content = json.loads(path.read_bytes())
    if content['format'] != _FORMAT or content['key'] != record.key:
      raise ValueError('another layout')
    answers = tuple(map(_answer, content['objects']))
    ended = content['ended']
    if not isinstance(ended, str):
      raise TypeError('another layout')
  except FileNotFoundError:
    return Sent(record.key, record.study_uid)
  except (OSError, ValueError, TypeError, KeyError):
    _log.warning(
      '%s: cannot be understood; the destination is asked for what it has.', path
    )
    return Sent(record.key, record.study_uid, is_damaged=True)
  return Sent(
    record.key,
    record.study_uid,
    {each.sop_instance_uid: each for each in answers},
    ended,
  )


def write(output: str | os.PathLike[str], sent: Sent) -> None:
  """Puts what is known on the disk before it returns.

  Raises:
    errors.OutputError: it cannot be written.
  """
  objects = [
    {**dataclasses.asdict(each), 'state': each.state.value}
    for each in sent.answers.values()
  ]
  files.write_json(
    folder(output) / f'{sent.key}.json',
    {
      'format': _FORMAT,
      'key': sent.key,
      'study_uid': sent.study_uid,
      'ended': sent.ended,
      'objects': objects,
    },
  )


def orphans(output: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields the files whose result is not there any more."""
  results = records.studies_folder(output)
  for path in sorted(folder(output).glob('[!.]*.json')):
    if not results.joinpath(path.stem).is_dir():
      yield path


def _answer(content: dict[str, Any]) -> Answer:
  return Answer(**{**content, 'state': State(content['state'])})

"""Asks the PACS that sends what it has of a study, without holding anything else up.

One thread, one question at a time. An answer is of what was kept when it was asked; a
later instance makes it void.
"""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import threading
import time

from covid_tf import errors
from covid_tf.clinic import pacs
from covid_tf.node import completeness
from covid_tf.node import forwarding
from covid_tf.node import spool as spool_lib

_log = logging.getLogger(__name__)

_JOIN_S = 5.0


@dataclasses.dataclass
class _Question:
  """What is known of one study.

  Attributes:
    generation: of what is kept.
    due_s: when it may be asked (again).
    tries: so far.
    answer: of that generation; None before the first.
    problem: why there is no answer; '' before the first try.
  """

  generation: int
  due_s: float
  tries: int = 0
  answer: completeness.Comparison | None = None
  problem: str = ''


class Source:
  """The PACS that sends; a context manager, whose thread runs within the block."""

  def __init__(
    self,
    connect: Callable[[], pacs.Archive],
    spool: spool_lib.Spool,
    *,
    pauses: forwarding.Pauses | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Asks nothing yet.

    Args:
      connect: the PACS, with short limits and of one attempt: repeated here.
      spool: what is kept.
      pauses: between two questions about a study that is not whole.
      clock: seconds that only grow.
    """
    self._connect = connect
    self._spool = spool
    self._pauses = pauses or forwarding.Pauses()
    self._clock = clock
    self._changed = threading.Condition()
    self._questions: dict[str, _Question] = {}
    self._is_stopping = False
    self._thread = threading.Thread(target=self._run, name='source', daemon=True)

  def __enter__(self) -> 'Source':
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    with self._changed:
      self._is_stopping = True
      self._changed.notify_all()
    self._thread.join(_JOIN_S)  # A daemon: a PACS that says nothing holds up no end.

  @property
  def is_alive(self) -> bool:
    """Whether its thread runs."""
    return self._thread.is_alive()

  def want(self, generations: Mapping[str, int]) -> None:
    """Says which studies an answer is wanted for, and nothing else any more.

    Args:
      generations: Study Instance UID to the generation that is kept.
    """
    with self._changed:
      self._questions = {
        uid: earlier
        if (earlier := self._questions.get(uid)) and earlier.generation == generation
        else _Question(generation, self._clock())
        for uid, generation in generations.items()
      }
      self._changed.notify_all()

  def answer(self, uid: str, generation: int) -> completeness.Comparison | None:
    """What it lists, compared with what was kept; None where it has not said yet."""
    with self._changed:
      found = self._questions.get(uid)
      return found.answer if found and found.generation == generation else None

  def problem(self, uid: str) -> str:
    """Why there is no answer about a study; '' where none is known."""
    with self._changed:
      found = self._questions.get(uid)
      return found.problem if found else ''

  def _run(self) -> None:
    while True:
      with self._changed:
        if self._is_stopping:
          return
        due_s = min(
          (each.due_s for each in self._questions.values()), default=float('inf')
        )
        left_s = due_s - self._clock()
        if left_s > 0:
          self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
          continue
        uid, question = min(self._questions.items(), key=lambda item: item[1].due_s)
      self._ask(uid, question)

  def _ask(self, uid: str, question: _Question) -> None:
    answer, problem = None, ''
    try:
      answer = self._asked(uid)
    except errors.CovidTFError as error:
      problem = str(error)
    except Exception as error:  # Its text may hold anything of a header.
      problem = f'{type(error).__name__} while the PACS that sends was asked'
    if problem and problem != question.problem:
      _log.warning('study %s: %s', uid, problem)
    with self._changed:
      question.tries += 1
      question.due_s = self._clock() + self._pauses.after(question.tries)
      # What it said before stands until it says something else.
      question.answer = answer or question.answer
      question.problem = problem

  def _asked(self, uid: str) -> completeness.Comparison:
    listed: dict[str, set[str]] = {}
    for each in self._connect().find(uid):
      listed.setdefault(each.series_uid, set()).add(each.sop_instance_uid)
    # After the answer: what came meanwhile makes another generation of it.
    return completeness.compare(self._spool.has_instances(uid), listed)

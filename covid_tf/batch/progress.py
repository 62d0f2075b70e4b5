"""How far an archive is: a bar on a terminal, a line a minute elsewhere."""

import collections
import os
import re
import sys
import threading
import time

import tqdm

from covid_tf.batch import records

_LINE_EVERY_S = 60.0
_SLOWEST_KEPT = 10
_KEYS_KEPT = 3


class Reason:
  """Studies without a score for one reason.

  Attributes:
    example: the reason of the first of them.
    count: how many there are.
    keys: of the first few; the manifest has them all.
  """

  def __init__(self, example: str):
    self.example = example
    self.count = 0
    self.keys: list[str] = []

  def add(self, key: str) -> None:
    """Counts one more study."""
    self.count += 1
    if len(self.keys) < _KEYS_KEPT:
      self.keys.append(key)


class Progress:
  """Counts what became of studies; a context manager.

  Attributes:
    counts: status to number of studies.
    reasons: why studies have no score, by the reason with its numbers left out.
    slowest: (seconds, key) of the slowest studies, slowest first.
  """

  def __init__(self, total: int, *, name: str = 'covid-tf batch', stream=None):
    self._stream = stream or sys.stderr
    self._total = total
    self._name = name
    self._start = time.monotonic()
    # Not tqdm.auto: worker processes need a script and its terminal, never a notebook's
    # cell, and elsewhere a line a minute is said instead.
    self._bar = tqdm.tqdm(
      total=total,
      unit='study',
      file=self._stream,
      smoothing=0.1,
      disable=not self._stream.isatty(),
      **_size(self._stream),
      bar_format=(
        '{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}'
      ),
    )
    self.counts: collections.Counter = collections.Counter()
    self.reasons: dict[str, Reason] = {}
    self.slowest: list[tuple[float, str]] = []
    self._changing = threading.Lock()
    self._ended = threading.Event()
    self._teller = threading.Thread(target=self._tell, daemon=True)

  def __enter__(self) -> 'Progress':
    self._teller.start()
    return self

  def __exit__(self, *exception) -> None:
    self._ended.set()
    self._teller.join()
    self._bar.close()

  def add(self, record: records.Record) -> None:
    """Counts one study that has ended."""
    with self._changing:
      self._count(record)
      self._bar.set_postfix_str(self._state(), refresh=False)
      self._bar.update()

  def _count(self, record: records.Record) -> None:
    self.counts[record.status] += 1
    if record.reason:
      kind = re.sub(r'[\d.]+', '#', record.reason)
      self.reasons.setdefault(kind, Reason(record.reason)).add(record.key)
    self.slowest = sorted([*self.slowest, (record.seconds, record.key)], reverse=True)[
      :_SLOWEST_KEPT
    ]

  def _tell(self) -> None:
    """Says every minute how far it is, also while no study ends for long."""
    while not self._ended.wait(_LINE_EVERY_S):
      with self._changing:
        if self._bar.disable:
          print(
            f'{self._name}: {self.done} of {self._total} studies, '
            f'{self._state()}, {self._time_left()} left',
            file=self._stream,
            flush=True,
          )
        else:
          self._bar.set_postfix_str(self._state())

  @property
  def done(self) -> int:
    """Studies that have come to their end."""
    return sum(self.counts.values())

  @property
  def studies_per_hour(self) -> float:
    """Since the start."""
    return 3600 * self.done / max(time.monotonic() - self._start, 1e-9)

  def _time_left(self) -> str:
    if not self.done:
      return 'unknown time'
    return _duration(3600 * (self._total - self.done) / self.studies_per_hour)

  def _state(self) -> str:
    counts = ', '.join(
      f'{count} {status}' for status, count in sorted(self.counts.items())
    )
    return f'{self.studies_per_hour:.0f} studies/h: {counts or "none yet"}'


def _size(stream) -> dict[str, int]:
  """A size for a terminal that reports none, on which tqdm shows nothing."""
  try:
    known = all(os.get_terminal_size(stream.fileno()))
  except OSError:  # No terminal.
    known = True
  return {} if known else {'ncols': 100, 'nrows': 24}


def _duration(seconds: float) -> str:
  minutes = round(seconds / 60)
  return f'{minutes // 60} h {minutes % 60:02d} min'

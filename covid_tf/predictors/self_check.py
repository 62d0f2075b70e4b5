"""Does a model compute right? Its reference answers, and one batch again and again.

A model that covid-tf exported carries reference slices and its own float32 answers
(signature `self_check`). Whoever serves it must give these answers, within what other
processors and batch sizes may change; and the same batch must give the same bits,
however many requests are on their way. NumPy alone.
"""

import collections
from collections.abc import Callable, Iterator
from concurrent import futures
import dataclasses
import hashlib
import logging
import threading
from typing import Any, Protocol

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import answers
from covid_tf.predictors import differences
from covid_tf.predictors import reference_slices

# What is asked again and again.
_REPEATED = {
  contract.LUNGS_MODEL: contract.PROBABILITY,
  contract.CLASSIFIER_MODEL: contract.GRAD_CAM,
}
# The short form asks what a score asks, so often, two at once.
_SHORT = {
  contract.LUNGS_MODEL: (contract.SERVING_DEFAULT, 2),
  contract.CLASSIFIER_MODEL: (contract.GRAD_CAM, 4),
}
_MOST_MACHINES = 16  # Behind one address; more kinds of answers are no machines.

REMEDY = (
  'export the model again with this version of covid-tf; until then '
  'TF_ENABLE_ONEDNN_OPTS=0 in the environment of what computes, or '
  '--tensorflow_inter_op_parallelism=1 of a TensorFlow Serving, may help, and '
  'covid-tf check says whether it does'
)

_log = logging.getLogger(__name__)


class Passed:
  """What was found right already; for any number of threads."""

  def __init__(self):
    self._lock = threading.Lock()
    self._keys: set[tuple] = set()

  def __contains__(self, key: tuple) -> bool:
    with self._lock:
      return key in self._keys

  def add(self, key: tuple) -> None:
    """Notes what need not be asked again."""
    with self._lock:
      self._keys.add(key)


_passed = Passed()  # By this process.


class Asked(Protocol):
  """A model that can be asked, of one version, from several threads."""

  def answers(
    self, model: str, signature: str, hu: np.ndarray
  ) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
    """See `networks.Networks.answers`."""

  def self_check(self, model: str) -> dict[str, np.ndarray] | None:
    """The outputs of `self_check`; None of a model that does not have it."""


@dataclasses.dataclass
class Report:
  """What was found of one model.

  Attributes:
    identity: who answered.
    has_references: whether the model carries reference answers.
    comparisons: the worst of each output, over all answers.
    batches: how often the fixed batch was asked again.
    counts: how often each answer came that differs by a bit, most frequent first.
    spread: the largest difference between these answers.
    several_machines: the answers are those of several machines behind one address.
    failures: what is wrong, in words; empty if nothing is.
    notes: what its reader should know all the same.
  """

  identity: results.ModelIdentity
  has_references: bool = False
  comparisons: list[differences.Comparison] = dataclasses.field(default_factory=list)
  batches: int = 0
  counts: list[int] = dataclasses.field(default_factory=list)
  spread: float = 0.0
  several_machines: bool = False
  failures: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)

  @property
  def largest(self) -> differences.Comparison | None:
    """The comparison that comes nearest to its tolerance, or farthest beyond it."""
    return max(
      self.comparisons,
      default=None,
      key=lambda found: found.difference / found.tolerance,
    )


def check(
  source: str,
  asked: Asked,
  identity: results.ModelIdentity,
  batches: int,
  *,
  one_machine: bool,
  accept_narrower: bool = False,
  tick: Callable[[], Any] = lambda: None,
) -> Report:
  """Asks a model everything: its references, then one batch many times.

  Args:
    source: the server's address or the models' folder, for messages.
    asked: the model.
    identity: its name, version and card.
    batches: how often the batch is asked, one at once and again two at once.
    one_machine: whether all answers must be the same bits.
    accept_narrower: take the answers of a narrower number format for right although
      the card names float32.
    tick: called after each batch.

  Returns:
    What was found; a model that fails to answer is a failure in it.
  """
  report, known = Report(identity), differences.of_card(identity)
  try:
    reference = asked.self_check(identity.name)
    report.has_references = reference is not None
    if reference is None:
      report.notes.append(
        'carries no reference answers (an older export, or not ours): only whether '
        'it repeats itself was asked'
      )
    else:
      for signature in answers.REFERENCED[identity.name]:
        _, outputs = _ask(asked, identity.name, signature, reference['hu'])
        _keep_worst(report, differences.compare(reference, signature, outputs, known))
    _repeat(report, asked, reference, batches, one_machine, tick)
  except errors.ModelError as error:
    report.failures.append(f'{error}'.removesuffix('.'))
  _judge(report, source, accept_narrower)
  return report


def check_short(
  source: str,
  asked: Asked,
  identity: results.ModelIdentity,
  key: tuple = (),
  *,
  may_be_narrower: bool = False,
) -> None:
  """Asks what can be asked within some seconds, once a process.

  Args:
    source: the server's address or the models' folder, for messages.
    asked: the model.
    identity: its name (of the contract), version and card.
    key: names, with the identity, what need not be asked twice; () to ask always.
    may_be_narrower: whether answers of a narrower number format are passed with a
      warning, since the machine may compute so.

  Raises:
    errors.ModelError: it computes wrong; names what, by how much, and what to do.
  """
  key = key and (*key, identity.name, identity.version, identity.card_sha256)
  if key in _passed:
    return
  reference = asked.self_check(identity.name)
  if reference is None:
    note_unchecked(source, identity)
    return
  signature, batches = _SHORT[identity.name]
  known = differences.of_card(identity)
  with futures.ThreadPoolExecutor(2) as pool:
    found = [
      pool.submit(_ask, asked, identity.name, signature, reference['hu'])
      for _ in range(batches)
    ]
    comparisons = [
      comparison
      for future in found
      for comparison in differences.compare(
        reference, signature, future.result()[1], known
      )
    ]
  worst = max(comparisons, key=lambda found: found.difference / found.tolerance)
  verdict = differences.verdict_of(comparisons)
  where = f'{source}: {identity.name} version {identity.version}'
  if verdict is differences.Verdict.NARROWER and (
    may_be_narrower or differences.compute_dtype(identity) != 'float32'
  ):
    if differences.compute_dtype(identity) == 'float32':
      _log.warning('%s: %s', where, differences.narrower_in_words(worst))
  elif verdict is not differences.Verdict.RIGHT:
    raise errors.ModelError(
      f'{where} computes wrong: {differences.in_words(worst)}; {REMEDY}.'
    )
  if key:
    _passed.add(key)


def note_unchecked(source: str, identity: results.ModelIdentity) -> None:
  """Logs that a model without references is used as it is."""
  _log.info(
    '%s: %s version %d has no self_check: used unchecked.',
    source,
    identity.name,
    identity.version,
  )


def _ask(asked, model, signature, hu) -> tuple[bytes, dict[str, np.ndarray]]:
  """(digest of all bits, outputs) of one batch."""
  pieces = [outputs for _, outputs in asked.answers(model, signature, hu)]
  outputs = {
    name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]
  }
  digest = hashlib.sha256()
  for name in sorted(outputs):
    digest.update(outputs[name].tobytes())
  return digest.digest(), outputs


def _repeat(report, asked, reference, batches, one_machine, tick) -> None:
  """Asks one batch over and over, one at once, then two at once."""
  model = report.identity.name
  signature = _REPEATED[model]
  if reference is not None:
    hu = reference['hu']
  elif model == contract.LUNGS_MODEL:
    hu = reference_slices.whole_slices()
  else:
    hu = reference_slices.lung_crops()[:4]
  counts: collections.Counter = collections.Counter()
  first: dict[str, np.ndarray] = {}
  verdicts: set[differences.Verdict] = set()
  known = differences.of_card(report.identity)

  def run(at_once: int) -> None:
    with futures.ThreadPoolExecutor(at_once) as pool:
      started = [pool.submit(_ask, asked, model, signature, hu) for _ in range(batches)]
      try:
        for future in started:
          note(*future.result())
      finally:
        pool.shutdown(cancel_futures=True)

  def note(digest, outputs) -> None:
    tick()
    counts[digest] += 1
    report.batches += 1
    if counts[digest] > 1:
      return
    if reference is not None:
      _keep_worst(report, differences.compare(reference, signature, outputs, known))
    if not first:
      first.update(outputs)
      return
    report.spread = max(
      report.spread,
      *(
        float(np.abs(outputs[name].astype(np.float64) - first[name]).max())
        for name in outputs
      ),
    )
    verdicts.add(differences.verdict_of(differences.compare(first, signature, outputs)))

  run(1)
  run(2)
  report.counts = sorted(counts.values(), reverse=True)
  fair = report.batches / len(counts)
  # Machines behind one address share the requests; what comes now and then does not.
  report.several_machines = (
    not one_machine
    and verdicts == {differences.Verdict.RIGHT}
    and (1 < len(counts) <= _MOST_MACHINES and min(counts.values()) >= max(2, fair / 4))
  )


def _keep_worst(report: Report, comparisons: list[differences.Comparison]) -> None:
  kept = {(found.signature, found.output): found for found in report.comparisons}
  for found in comparisons:
    key = found.signature, found.output
    if key in kept:
      found = max(
        kept[key],
        found,
        key=lambda one: (one.verdict is differences.Verdict.WRONG, one.difference),
      )
    kept[key] = found
  report.comparisons = list(kept.values())


def _judge(report: Report, source: str, accept_narrower: bool) -> None:
  """Turns what was measured into failures and notes."""
  dtype = differences.compute_dtype(report.identity)
  verdict = differences.verdict_of(report.comparisons)
  what = f'{source}: {report.identity.name} version {report.identity.version}'
  largest = report.largest
  if verdict is differences.Verdict.WRONG and largest:
    report.failures.append(
      f'{what} computes wrong: {differences.in_words(largest)}; {REMEDY}'
    )
  elif verdict is differences.Verdict.NARROWER and largest:
    text = differences.narrower_in_words(largest)
    if dtype != 'float32':
      report.notes.append(f'computes in {dtype}, as its card says: {text}')
    elif accept_narrower:
      report.notes.append(text)
    else:
      report.failures.append(f'{what}: {text}')
  if len(report.counts) < 2:
    return
  text = (
    f'{len(report.counts)} answers to one and the same batch that differ by '
    f'bits, by {report.spread:.2g} at most'
  )
  if report.several_machines:
    report.notes.append(
      f'{text}, each of which repeats itself: as several machines behind one address '
      'give'
    )
  else:
    often = ', '.join(map(str, report.counts[:_MOST_MACHINES]))
    report.failures.append(
      f'{what} does not repeat itself: {text} (they came {often} times); the same '
      f'bits are required; {REMEDY}. On a GPU, TF_DETERMINISTIC_OPS=1'
    )

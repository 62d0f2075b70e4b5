"""Does a model compute right? Its reference answers, and one batch again and again.

A model that covid-tf exported carries reference slices and its own float32 answers
(signature `self_check`). Whoever serves it must give these answers, within what other
processors and batch sizes may change; and the same batch must give the same bits,
however many requests are on their way. NumPy alone.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
import enum
import hashlib
import logging
import math
import threading
from typing import Any, Protocol

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import answers
from covid_tf.predictors import reference_slices

# The design's bounds between float32 answers of two machines.
PROBABILITY_TOLERANCE = 1e-4
MAP_TOLERANCE = 1e-3
MAP_SUM_TOLERANCE = 1e-3  # Of a whole map's sum, relative.
# `lung_mask` is the probability, interpolated and compared with 0.5. Interpolation is a
# weighted mean, so what is interpolated moves by no more than the probability does: a
# pixel may turn only where the reference lies that near to 0.5. The rest is rounding of
# the interpolation itself.
MASK_TOLERANCE = PROBABILITY_TOLERANCE + 1e-5
_MASK_THRESHOLD = 0.5

# Ours. What a narrower number format may change on an average over all values, and at
# most. bfloat16 has 8 bits: of the demo models it moves maps by 0.0003 on an average
# and by 0.015 at most. A batch that a fault destroyed is off by tenths on an average.
_NARROW_MEAN = 0.02
_NARROW_MOST = 0.2
# Each map is divided by its own maximum: where evidence nearly cancels out, a narrower
# format gives another map. So an export in one names in its card what its own answers
# differed by when it was made, and another machine may round so many times as much.
_TIMES_KNOWN = 4
NARROW_TYPES = ('bfloat16', 'float16', 'tensorfloat32')

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


class Verdict(enum.Enum):
  """What a difference is."""

  RIGHT = 'right'
  NARROWER = 'as a narrower number format gives'
  WRONG = 'wrong'


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One output of a signature beside its reference.

  Attributes:
    signature: of the model.
    output: its name, or 'sum of …' for whole maps.
    difference: the largest, absolute; of a sum, relative; of a mask, how far from its
      threshold the reference of a pixel lies that turned.
    tolerance: what float32 may differ by.
    verdict: what that says.
    average: the difference on an average over all values; of sums, the largest of one
      map by its number of cells; of a mask, the share of pixels that turned.
  """

  signature: str
  output: str
  difference: float
  tolerance: float
  verdict: Verdict
  average: float = 0.0


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
  comparisons: list[Comparison] = dataclasses.field(default_factory=list)
  batches: int = 0
  counts: list[int] = dataclasses.field(default_factory=list)
  spread: float = 0.0
  several_machines: bool = False
  failures: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)

  @property
  def largest(self) -> Comparison | None:
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
  report = Report(identity)
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
        _keep_worst(
          report, compare(reference, signature, outputs, known_differences(identity))
        )
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
  with futures.ThreadPoolExecutor(2) as pool:
    found = [
      pool.submit(_ask, asked, identity.name, signature, reference['hu'])
      for _ in range(batches)
    ]
    comparisons = [
      comparison
      for future in found
      for comparison in compare(
        reference, signature, future.result()[1], known_differences(identity)
      )
    ]
  worst = max(comparisons, key=lambda found: found.difference / found.tolerance)
  verdict = _verdict(comparisons)
  where = f'{source}: {identity.name} version {identity.version}'
  if verdict is Verdict.NARROWER and (
    may_be_narrower or compute_dtype(identity) != 'float32'
  ):
    if compute_dtype(identity) == 'float32':
      _log.warning('%s: %s', where, _narrower(worst))
  elif verdict is not Verdict.RIGHT:
    raise errors.ModelError(f'{where} computes wrong: {_words(worst)}; {REMEDY}.')
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


def compute_dtype(identity: results.ModelIdentity) -> str:
  """The type that the model's card says it computes in."""
  card = identity.card if isinstance(identity.card, Mapping) else {}
  return str(card.get('compute_dtype', 'float32'))


def known_differences(identity: results.ModelIdentity) -> Mapping[str, list[float]]:
  """What a model's card says that its narrower type changed when it was exported.

  Returns:
    Output or 'sum of …' to [largest, average] difference, as `Comparison` has them;
    empty for float32, and where the card says nothing that can be used.
  """
  if compute_dtype(identity) not in NARROW_TYPES:
    return {}
  known = identity.card.get(contract.DIFFERENCES)
  return (
    {
      name: pair
      for name, pair in known.items()
      if isinstance(pair, list) and len(pair) == 2 and all(map(_is_measure, pair))
    }
    if isinstance(known, Mapping)
    else {}
  )


def _is_measure(value: Any) -> bool:
  return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def compare(
  reference: Mapping[str, np.ndarray],
  signature: str,
  outputs: Mapping[str, np.ndarray],
  known: Mapping[str, Sequence[float]] | None = None,
) -> list[Comparison]:
  """Holds the answer of one signature against the reference.

  Args:
    reference: the outputs of `self_check`.
    signature: what was asked about `reference['hu']`.
    outputs: the answer, as `answers.check` gives it.
    known: see `known_differences`; those of a narrower format are judged beside them.

  Returns:
    A comparison for each output, and one for each map's sum.
  """
  found, known = [], known or {}
  for name, array in outputs.items():
    wanted = reference[name]
    if name == 'lung_mask':
      found.append(_compare_masks(signature, array, reference, known))
      continue
    difference = np.abs(array.astype(np.float64) - wanted)
    is_map = name.startswith('cam_')
    found.append(
      _comparison(
        signature,
        name,
        difference,
        MAP_TOLERANCE if is_map else PROBABILITY_TOLERANCE,
        float(difference.mean()),
        known,
      )
    )
    if is_map:
      sums, wanted_sums = (a.sum((1, 2), np.float64) for a in (array, wanted))
      difference = np.abs(sums - wanted_sums)
      found.append(
        _comparison(
          signature,
          f'sum of {name}',
          # An empty map has nothing to be relative to: one cell of it, then.
          difference / np.maximum(wanted_sums, 1.0),
          MAP_SUM_TOLERANCE,
          float(difference.max(initial=0.0)) / wanted[0].size,
          known,
        )
      )
  return found


def _comparison(signature, name, difference, tolerance, average, known) -> Comparison:
  most = float(difference.max(initial=0.0))
  known_most, known_average = known.get(name, (0.0, 0.0))
  # A part of a small sum is large by any rounding: what counts is the change by cell.
  may_differ = (
    name.startswith('sum of ') or most <= max(_NARROW_MOST, _TIMES_KNOWN * known_most)
  ) and (average <= max(_NARROW_MEAN, _TIMES_KNOWN * known_average))
  if most <= tolerance:
    verdict = Verdict.RIGHT
  else:
    verdict = Verdict.NARROWER if may_differ else Verdict.WRONG
  return Comparison(signature, name, most, tolerance, verdict, average)


def _compare_masks(signature, mask, reference, known) -> Comparison:
  turned = mask != reference['lung_mask']
  distance = np.zeros(mask.shape)
  if turned.any():
    distance[turned] = np.abs(
      _interpolated(reference['lung_probability'], mask.shape[1:]) - _MASK_THRESHOLD
    )[turned]
  return _comparison(
    signature, 'lung_mask', distance, MASK_TOLERANCE, float(turned.mean()), known
  )


def _interpolated(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Bilinear with aligned pixel centres, as the served graph enlarges."""
  rows, columns = (_matrix(*sizes) for sizes in zip(images.shape[1:], shape))
  return rows @ images.astype(np.float64) @ columns.T


def _matrix(source: int, target: int) -> np.ndarray:
  centres = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
  return np.maximum(0, 1 - np.abs(centres[:, np.newaxis] - np.arange(source)))


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
  verdicts: set[Verdict] = set()

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
      _keep_worst(
        report,
        compare(reference, signature, outputs, known_differences(report.identity)),
      )
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
    verdicts.add(_verdict(compare(first, signature, outputs)))

  run(1)
  run(2)
  report.counts = sorted(counts.values(), reverse=True)
  fair = report.batches / len(counts)
  # Machines behind one address share the requests; what comes now and then does not.
  report.several_machines = (
    not one_machine
    and verdicts == {Verdict.RIGHT}
    and (1 < len(counts) <= _MOST_MACHINES and min(counts.values()) >= max(2, fair / 4))
  )


def _keep_worst(report: Report, comparisons: list[Comparison]) -> None:
  kept = {(found.signature, found.output): found for found in report.comparisons}
  for found in comparisons:
    key = found.signature, found.output
    if key in kept:
      found = max(
        kept[key], found, key=lambda one: (one.verdict is Verdict.WRONG, one.difference)
      )
    kept[key] = found
  report.comparisons = list(kept.values())


def _verdict(comparisons: list[Comparison]) -> Verdict:
  verdicts = {found.verdict for found in comparisons}
  return next(
    verdict
    for verdict in (Verdict.WRONG, Verdict.NARROWER, Verdict.RIGHT)
    if verdict in verdicts or verdict is Verdict.RIGHT
  )


def _judge(report: Report, source: str, accept_narrower: bool) -> None:
  """Turns what was measured into failures and notes."""
  dtype = compute_dtype(report.identity)
  verdict = _verdict(report.comparisons)
  what = f'{source}: {report.identity.name} version {report.identity.version}'
  largest = report.largest
  if verdict is Verdict.WRONG and largest:
    report.failures.append(f'{what} computes wrong: {_words(largest)}; {REMEDY}')
  elif verdict is Verdict.NARROWER and largest:
    text = _narrower(largest)
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


def _words(found: Comparison) -> str:
  return (
    f'signature {found.signature}, {found.output}: required within '
    f'{found.tolerance:.2g} of the reference answers, found a difference of '
    f'{found.difference:.3g}'
  )


def _narrower(found: Comparison) -> str:
  return (
    'answers are those of a narrower number format than float32, or of slightly '
    f'other weights ({_words(found)}): TF32 is the default of NVIDIA GPUs since '
    'Ampere (NVIDIA_TF32_OVERRIDE=0 turns it off), bfloat16 what '
    '--mixed_precision=bfloat16 of a TensorFlow Serving gives'
  )

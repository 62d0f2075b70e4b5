"""What a node counts, in the text form that Prometheus reads.

Nothing of a study is a label: a name for each study would grow without end, and UIDs
do not belong where many people look.
"""

from collections.abc import Iterable
from typing import Any, Literal, get_args

from covid_tf import version
from covid_tf.batch import records
from covid_tf.clinic import pacs

# The content type of `Metrics.text`.
CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

AssociationOutcome = Literal['accepted', 'refused', 'released', 'aborted', 'lost']
InstanceOutcome = Literal['new', 'again', 'different', 'refused']
_STATUSES = (records.SCORED, records.REFUSED, records.FAILED, records.UNWRITTEN)
# From a small study on a GPU to a large one on two cores, in seconds.
_STUDY_SECONDS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)


class Metrics:
  """Counters and gauges of one node; thread-safe.

  Each node has a registry of its own, so that two in one process (as in a test) do not
  count for each other. All names begin with `covid_tf_node_`, but for those of the
  process itself (`process_…`, Linux only), which are the same in all programs.
  """

  def __init__(self) -> None:
    """Begins at zero, all labels present: what has not happened yet reads 0.

    Raises:
      errors.UsageError: the extra `clinic` is not installed.
    """
    self._client = pacs.need('prometheus_client')
    self._registry = self._client.CollectorRegistry()
    self._client.ProcessCollector(registry=self._registry)
    self._client.Info(
      'covid_tf_node', 'The software of this node.', registry=self._registry
    ).info({'version': version.__version__})
    self._count_what_comes()
    self._count_what_is_done()

  def _count_what_comes(self) -> None:
    self._associations = self._labelled(
      'associations',
      'Associations by outcome; accepted ones are counted again when they end.',
      'outcome',
      get_args(AssociationOutcome),
    )
    self._instances = self._labelled(
      'instances', 'Instances by outcome.', 'outcome', get_args(InstanceOutcome)
    )
    self._received = self._counter(
      'received_bytes', 'Bytes of instances that came, whatever became of them.'
    )
    self._waiting = self._gauge(
      'studies_waiting', 'Studies without a result that are not incomplete.'
    )
    self._incomplete = self._gauge(
      'studies_incomplete', 'Studies that are not scored because images are missing.'
    )
    self._free = self._gauge('free_bytes', 'Free space on the disk of the spool.')

  def _count_what_is_done(self) -> None:
    self._studies = self._labelled(
      'studies', 'Studies that ended, by status.', 'status', _STATUSES
    )
    self._seconds = self._client.Histogram(
      'covid_tf_node_study_seconds',
      'Time for reading, models and writing of a scored study.',
      buckets=_STUDY_SECONDS,
      registry=self._registry,
    )
    self._sent = self._counter('sent_objects', 'Objects that the destination has.')
    self._rejected = self._counter(
      'rejected_objects', 'Objects that the destination will not have.'
    )
    self._failures = self._counter(
      'send_failures', 'Attempts at sending that ended before all was answered.'
    )
    self._unsent = self._gauge('results_unsent', 'Results that are still to be sent.')
    self._kept_back = self._gauge(
      'results_rejected', 'Results of which the destination rejected an object.'
    )

  def association(self, outcome: AssociationOutcome) -> None:
    """An association was asked for, or ended."""
    self._associations[outcome].inc()

  def instance(self, outcome: InstanceOutcome, size_bytes: int) -> None:
    """An instance was answered; `size_bytes` is what came of it."""
    self._instances[outcome].inc()
    self._received.inc(size_bytes)

  def study(self, status: str, seconds: float) -> None:
    """A study ended with a status of `records`, after so many seconds of work."""
    self._studies[status].inc()
    if status == records.SCORED:
      self._seconds.observe(seconds)

  def sent(self, objects: int) -> None:
    """The destination has so many more objects, with a warning or without."""
    self._sent.inc(objects)

  def rejected(self, objects: int) -> None:
    """The destination answered for so many more objects that it does not take them."""
    self._rejected.inc(objects)

  def send_failed(self) -> None:
    """The destination was away, or gave no answer for all."""
    self._failures.inc()

  def studies_waiting(self, count: int) -> None:
    """Sets how many studies are here and have no result yet."""
    self._waiting.set(count)

  def studies_incomplete(self, count: int) -> None:
    """Sets how many studies are not scored because images are missing."""
    self._incomplete.set(count)

  def results_unsent(self, count: int) -> None:
    """Sets how many results are still to be sent."""
    self._unsent.set(count)

  def results_rejected(self, count: int) -> None:
    """Sets how many results are held back by a rejection."""
    self._kept_back.set(count)

  def free_bytes(self, size_bytes: int) -> None:
    """Sets the free space on the disk of the spool."""
    self._free.set(size_bytes)

  def text(self) -> bytes:
    """All of it, as CONTENT_TYPE."""
    found: bytes = self._client.generate_latest(self._registry)
    return found

  def _counter(self, name: str, help_: str) -> Any:
    return self._client.Counter(f'covid_tf_node_{name}', help_, registry=self._registry)

  def _gauge(self, name: str, help_: str) -> Any:
    return self._client.Gauge(f'covid_tf_node_{name}', help_, registry=self._registry)

  def _labelled(
    self, name: str, help_: str, label: str, values: Iterable[str]
  ) -> dict[str, Any]:
    """A counter for each value of a label."""
    counter = self._client.Counter(
      f'covid_tf_node_{name}', help_, [label], registry=self._registry
    )
    return {value: counter.labels(value) for value in values}

"""The node in one place: what comes is kept, what is whole is scored and sent on.

    listener -> spool -> studies -> feed -> engines.map_studies(scorer) -> forwarder

The main thread runs the engine, as `covid-tf batch` does. A second one decides: which
study is whole, what is accepted, when it ends. A third one removes what has been kept
for long enough, which may take its time.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import logging
import pathlib
import threading
from typing import Any

from covid_tf import errors
from covid_tf.batch import archive_run
from covid_tf.batch import engines
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.batch import scoring
from covid_tf.clinic import pacs
from covid_tf.node import completeness
from covid_tf.node import forwarding
from covid_tf.node import health
from covid_tf.node import listener as listener_lib
from covid_tf.node import metrics as metrics_lib
from covid_tf.node import retention
from covid_tf.node import source_pacs
from covid_tf.node import spool as spool_lib
from covid_tf.node import studies as studies_lib

_log = logging.getLogger(__name__)

_SWEEP_S = 3600.0
_LONGEST_TICK_S = 1.0
_DRAIN_RESULTS_S = 10.0
_JOIN_S = 5.0
# Then it is not the studies: the models are asked who they are before the next one.
_MOST_FAILURES_IN_A_ROW = 3
_MODELS_PAUSES = forwarding.Pauses(5.0, 60.0)
_ENDS = (records.SCORED, records.REFUSED)

Connect = Callable[[], pacs.Archive]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a node is told.

  Attributes:
    output: the folder of the results.
    spool: the folder of what has come; None: `spool` of the output.
    listener: where it listens, and for whom.
    rules: when a study is whole.
    keep: how long images and results are kept.
    processes: workers.
    most_waiting: studies that may wait for the models before senders are put off.
    reserve_bytes: free space below which senders are put off.
    health: (host, port) of its state; None: nowhere.
    end_within_s: how long running associations may take once it is to end.
    redo: score again what is kept and was scored by another configuration.
    retry_rejected: send once more what a destination rejected.
  """

  output: pathlib.Path
  spool: pathlib.Path | None = None
  listener: listener_lib.Settings = listener_lib.Settings()
  rules: completeness.Rules = completeness.Rules()
  keep: retention.Keep = retention.Keep()
  processes: int = 1
  most_waiting: int = 200
  reserve_bytes: int = spool_lib.RESERVE_BYTES
  health: tuple[str, int] | None = None
  end_within_s: float = 60.0
  redo: bool = False
  retry_rejected: bool = False

  def __post_init__(self) -> None:
    for flag, value in (
      ('--processes', self.processes),
      ('--most-waiting', self.most_waiting),
      ('--end-within', self.end_within_s),
    ):
      if not value > 0:
        raise errors.UsageError(f'{flag}: a number above 0 is required, found {value}.')
    if self.health and not 0 <= self.health[1] <= 65535:
      # The system would take what is left of it after division by 65536.
      raise errors.UsageError(
        '--health-port: a number from 0 (any free port) to 65535 is required, found '
        f'{self.health[1]}.'
      )
    if self.reserve_bytes < 0:
      raise errors.UsageError(
        f'--reserve: a number from 0 is required, found {self.reserve_bytes >> 20}.'
      )
    results = records.studies_folder(self.output).resolve()
    images = self.spool_folder.resolve()
    if images == results.parent or results in (images, *images.parents):
      raise errors.UsageError(
        f'--spool {self.spool}: another folder than that of the results is required; '
        'give one of its own.'
      )

  @property
  def spool_folder(self) -> pathlib.Path:
    """Where what has come is kept."""
    return self.spool or self.output / 'spool'


class Node:
  """One node; `run` runs it, in the thread that calls it."""

  def __init__(
    self,
    settings: Settings,
    make_scorer: Callable[[], scoring.Scorer],
    *,
    destination: Connect | None = None,
    source: Connect | None = None,
  ):
    """Starts nothing yet.

    Args:
      settings: what it is told.
      make_scorer: asks the models who they are; called again after failures. Its
        errors of models and workers are waited out, others end the node.
      destination: where objects go, of one attempt; None: they stay.
      source: the PACS that sends, of one attempt and short limits; None: not asked.
    """
    self._settings = settings
    self._make_scorer = make_scorer
    self._connect_destination = destination
    self._connect_source = source
    self.metrics = metrics_lib.Metrics()
    self._ending = threading.Event()
    self._lock = threading.Lock()
    self._round: threading.Event | None = None  # Stops the engine that runs.
    self._is_over = False
    self._configuration = ''
    self._models: bool | str = 'no models have answered yet'

  def end(self) -> None:
    """Asks it to end in order; from any thread."""
    self._ending.set()

  def run(self, on_open: Callable[[int], object] = lambda port: None) -> None:
    """Runs until it is asked to end.

    Args:
      on_open: called with the port once it listens.

    Raises:
      errors.UsageError: a folder or port is in use, or models do not fit.
      errors.OutputError: a folder cannot be written.
      errors.ClusterError: no worker process can be started.
    """
    with contextlib.ExitStack() as stack:
      self._open(stack)
      on_open(self._listener.port)
      self._decider.start()
      try:
        self._score_always()
      except BaseException:
        self._is_over = True  # Nobody is waited for.
        self._ending.set()
        self._decider.join(_JOIN_S)
        raise
      self._decider.join()
      if self._forwarder:
        self._forwarder.drain(_DRAIN_RESULTS_S)
    _log.info('the node has ended')

  def _open(self, stack: contextlib.ExitStack) -> None:
    """Recovers what is on disk, and opens the doors last."""
    settings = self._settings
    output = stack.enter_context(
      archive_run.exclusive(settings.output, 'covid-tf node')
    )
    scoring.remove_leftovers(output, 0)
    self._spool = stack.enter_context(
      spool_lib.Spool(settings.spool_folder, settings.reserve_bytes)
    )
    self._manifest = stack.enter_context(records.Manifest(output))
    self._decider = threading.Thread(
      target=self._decide_always, name='decisions', daemon=True
    )
    sweeper = threading.Thread(target=self._sweep_always, name='retention', daemon=True)
    self._threads: dict[str, Callable[[], bool]] = {
      'decisions': self._decider.is_alive,
      'retention': sweeper.is_alive,
    }
    source = None
    if self._connect_source:
      source = source_pacs.Source(self._connect_source, self._spool)
      stack.enter_context(source)
      self._threads['source'] = lambda: source.is_alive
    self._studies = studies_lib.Studies(
      output, self._spool, settings.rules, source=source, redo=settings.redo
    )
    stack.callback(self._studies.feed.close)
    self._forwarder: forwarding.Forwarder | None = None
    if self._connect_destination:
      forwarder = forwarding.Forwarder(
        output,
        self._connect_destination,
        self.metrics,
        retry_rejected=settings.retry_rejected,
      )
      self._forwarder = stack.enter_context(forwarder)
      self._threads['forwarding'] = lambda: forwarder.is_alive
    sweeper.start()
    stack.callback(sweeper.join, _JOIN_S)  # What it removes is renamed first.
    stack.callback(self._ending.set)
    listener = listener_lib.Listener(
      settings.listener, self._spool, self._congested, self.metrics
    )
    self._threads['listener'] = lambda: listener.is_alive
    if settings.health:
      served = health.Health(*settings.health, self.metrics, self.state)
      stack.enter_context(served)
      _log.info('health at port %d of %s', served.port, settings.health[0])
    self._listener = stack.enter_context(listener)
    _log.info(
      '%s listens at port %d of %s',
      settings.listener.ae_title,
      self._listener.port,
      settings.listener.host,
    )

  def _congested(self) -> str | None:
    """Why no association is taken at the moment, or None."""
    if self._spool.is_nearly_full():
      return 'the disk of the spool is nearly full'
    if (backlog := self._studies.backlog) >= self._settings.most_waiting:
      return f'{backlog} studies wait for the models'
    return None

  def state(self) -> dict[str, Any]:
    """What the health port tells."""
    congested = self._congested()
    studies: dict[str, dict[str, str]] = self._studies.told()
    if self._forwarder:
      studies['unsent'] = dict(self._forwarder.waiting())
      studies['rejected'] = dict(self._forwarder.rejected())
    return {
      # While it ends in order they end one by one, and nobody need start it again.
      'threads': {}
      if self._ending.is_set()
      else {name: is_alive() for name, is_alive in self._threads.items()},
      'ready': {
        'models': self._models,
        'room': congested or True,
        'open': not self._ending.is_set() or 'the node ends',
      },
      'studies': studies,
    }

  # The thread that decides.

  def _decide_always(self) -> None:
    tick_s = min(self._settings.rules.settle_s / 4, _LONGEST_TICK_S)
    while not self._ending.wait(tick_s):
      try:
        self._studies.look(self._configuration)
        self._tell_gauges()
      except Exception as error:  # Its text may hold anything of a header.
        _log.error('decisions: %s; tried again', type(error).__name__)
    self._wind_up()

  def _wind_up(self) -> None:
    """Ends in order: senders first, then what is being scored."""
    _log.info('the node ends: running associations and studies are finished')
    if not self._is_over and not self._listener.drain(self._settings.end_within_s):
      _log.warning('associations that are still open are cut off')
    with self._lock:
      self._is_over = True
      if self._round:
        self._round.set()
    self._studies.feed.end()

  def _tell_gauges(self) -> None:
    self.metrics.studies_waiting(self._studies.waiting)
    self.metrics.studies_incomplete(self._studies.incomplete)
    self.metrics.free_bytes(self._spool.free_bytes())

  # The thread that removes.

  def _sweep_always(self) -> None:
    while True:
      try:
        self._sweep()
      except Exception as error:  # Its text may hold anything of a header.
        _log.error('retention: %s; tried again', type(error).__name__)
      if self._ending.wait(_SWEEP_S):
        return

  def _sweep(self) -> None:
    swept = retention.sweep(
      self._settings.output,
      self._spool,
      self._settings.keep,
      self._studies.list_study,
      sends=self._forwarder is not None,
    )
    if swept.keys:
      self._with_manifest(lambda: self._manifest.drop(swept.keys))

  # The thread that scores.

  def _score_always(self) -> None:
    for scorer in self._scorers():
      stop = threading.Event()
      with self._lock:
        if self._is_over:
          return
        self._round = stop
      self._score(scorer, stop)
      self._studies.given_up()

  def _scorers(self) -> Iterator[scoring.Scorer]:
    """Yields what studies are scored with, whenever the models answer."""
    failures = 0
    while not self._ending.is_set():
      try:
        scorer = self._make_scorer()
        scorer.configuration.save(self._settings.output)
      except errors.CovidTFError as error:
        passes = isinstance(error, errors.ModelError | errors.ClusterError)
        # Flags that were right before: servers of a list are changed one by one.
        if not passes and not self._configuration:
          raise
        failures += 1
        if self._models != str(error):
          _log.warning('studies wait: %s', error)
        self._models = str(error)
        self._ending.wait(_MODELS_PAUSES.after(failures))
        continue
      if failures:
        self._studies.retry_now()
      failures = 0
      self._models, self._configuration = True, scorer.configuration.digest
      yield scorer

  def _score(self, scorer: scoring.Scorer, stop: threading.Event) -> None:
    """Scores until it is asked to end, or it seems that the models have gone."""
    failures = 0
    for study, value in engines.map_studies(
      scorer, self._studies.feed, processes=self._settings.processes, stop=stop
    ):
      record = archive_run.recorded(scorer, study, value)
      self._take(study, record)
      failures = 0 if record.status in _ENDS else failures + 1
      if failures >= _MOST_FAILURES_IN_A_ROW:
        stop.set()

  def _take(self, study: listing.Study, record: records.Record) -> None:
    """Notes what became of a study; a score is handed on."""
    _log.log(
      logging.INFO if record.status == records.SCORED else logging.WARNING,
      'study %s: %s in %.1f s%s',
      record.key,
      record.status,
      record.seconds,
      f': {record.reason}' if record.reason else '',
    )
    self.metrics.study(record.status, record.seconds)
    if record.status != records.UNWRITTEN:
      self._with_manifest(lambda: self._manifest.put(record))
    self._studies.ended(study, record)
    if record.status == records.SCORED and self._forwarder:
      self._forwarder.hand(record.key)

  def _with_manifest(self, change: Callable[[], None]) -> None:
    try:
      with self._lock:
        change()
    except (errors.OutputError, OSError) as error:
      _log.error('%s', error)  # The results are whole; the next start mends it.

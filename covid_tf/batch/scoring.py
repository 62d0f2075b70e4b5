"""One study of an archive: read, scored, written whole; and what became of it.

Runs in worker processes, on two threads each: while one study has the models, the
next one is read and the last one written.
"""

import atexit
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import socket
import threading
import time
from typing import Any, TypeVar

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import readers
from covid_tf import results
from covid_tf import version
from covid_tf import volume as volume_lib
from covid_tf.analysis import pipeline
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.predictors import interface
from covid_tf.readers import header
from covid_tf.readers import privacy
from covid_tf.readers import sources
from covid_tf.reports import dicom_export
from covid_tf.reports import scored_study
from covid_tf.storage import files
from covid_tf.storage import result_json
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

# What makes two results comparable: the same models, thresholds and software.

_FOLDER = 'configurations'
_OF_READING = ('ignore_frame_of_reference', 'phase', 'select')
_OPTIONAL = (*_OF_READING, 'dicom')


@dataclasses.dataclass(frozen=True)
class Configuration:
  """Everything but the study that a result depends on.

  Attributes:
    models: (name, version, card digest) of each, lungs first.
    thresholds: of the score, as they were asked for.
    patient_key: digest that distinguishes one site's key file from another; None
      without one.
    resample_tilt: whether series with gantry tilt are straightened.
    software: name and version of this package.
    ignore_frame_of_reference, phase, select: as for `covid_tf.read_ct`.
    thickness_mm: that slices are averaged to; None: each is taken as it is.
    smoothing_mm: of the logits along the body; 0: none.
    dicom: which DICOM objects are in the results; None: none.
  """

  models: tuple[tuple[str, int, str], ...]
  thresholds: results.Thresholds
  patient_key: str | None = None
  resample_tilt: bool = False
  software: str = version.SOFTWARE
  ignore_frame_of_reference: bool = False
  phase: str | None = None
  select: str | None = None
  thickness_mm: float | None = None
  smoothing_mm: float = 0.0
  dicom: objects.Options | None = None

  @property
  def reading(self) -> dict[str, object]:
    """How a study is read, as keyword arguments of `covid_tf.read_ct`."""
    return {name: getattr(self, name) for name in ('resample_tilt', *_OF_READING)}

  @property
  def digest(self) -> str:
    """16 hex digits; equal for equal configurations, on every machine."""
    return hashlib.sha256(self._text().encode()).hexdigest()[:16]

  def save(self, output: str | os.PathLike) -> None:
    """Leaves the configuration beside the results, named by its digest.

    Raises:
      errors.OutputError: it cannot be written.
    """
    path = _path(output, self.digest)
    if not path.exists():
      files.write_atomically(path, f'{self._text()}\n'.encode())

  def difference(self, output: str | os.PathLike, digest: str) -> str:
    """Which parts differ from the configuration of another digest, in words."""
    try:
      other = json.loads(_path(output, digest).read_bytes())
    except (OSError, ValueError):
      return 'its record is lost'
    own = json.loads(self._text())
    names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
    return f'{" and ".join(names)} differ' if names else 'nothing that is recorded'

  def _text(self) -> str:
    values = dataclasses.asdict(self)
    # Absent where nobody asks for it, so that results of before are of the same
    # configuration still.
    for name in _OPTIONAL:
      if not values[name]:
        del values[name]
    return json.dumps(values, sort_keys=True)


def model_triples(identities) -> tuple[tuple[str, int, str], ...]:
  """ModelIdentity objects as a configuration holds them."""
  return tuple((model.name, model.version, model.card_sha256) for model in identities)


def key_digest(patient_key_file: str | os.PathLike | None) -> str | None:
  """Distinguishes key files without disclosing a key.

  Raises:
    errors.UsageError: the file is unusable.
  """
  if patient_key_file is None:
    return None
  key = privacy.load_key(patient_key_file)
  return hmac.new(key, b'covid-tf batch configuration', hashlib.sha256).hexdigest()[:16]


def _path(output, digest: str) -> pathlib.Path:
  return pathlib.Path(output) / _FOLDER / f'{digest}.json'


# Which server a study asks: its own, or the next one while its own is away.

# A server that is away keeps a study waiting for a minute; each worker looks
# whether it is back this often.
_AWAY_S = 300.0
# Servers that one study may wait for.
_MOST_TRIED = 2

_Answer = TypeVar('_Answer')


class Servers:
  """The servers that may answer a study, and which of them are away for now."""

  def __init__(self, addresses: Sequence[str]):
    """Begins with all of them present.

    Args:
      addresses: of servers with the same models.
    """
    self._addresses = tuple(addresses)
    self._away_until: dict[str, float] = {}

  def answered(self, key: str, ask: Callable[[str], _Answer]) -> _Answer:
    """Asks the server of a study, or the next one if that one fails.

    One server gives all answers of a study: another one starts it anew. A server is
    passed over for a while once another one could do what it could not; a study that
    fails everywhere is no fault of the servers.

    Args:
      key: of the study; chooses its own server, always the same.
      ask: address to the answers for the whole study.

    Returns:
      What `ask` returned.

    Raises:
      errors.ModelError: of the last server that was asked.
    """
    digest = hashlib.sha256(key.encode()).digest()
    own = int.from_bytes(digest[:8], 'big') % len(self._addresses)
    order = [*self._addresses[own:], *self._addresses[:own]]
    now = time.monotonic()
    present = [server for server in order if self._away_until.get(server, 0) <= now]
    *others, last = (present or order)[:_MOST_TRIED]
    failed = []
    for server in others:
      try:
        return ask(server)
      except errors.ModelError:
        failed.append(server)
    answer = ask(last)
    for server in failed:
      self._away_until[server] = time.monotonic() + _AWAY_S
    return answer


# Opens the models of a server, or those of this process for ''. Hashable, so that
# a process opens each once.
OpenModels = Callable[[str], contextlib.AbstractContextManager[interface.Models]]

# One study of a process has the models at a time: two would share the same cores.
_MODELS_TURN = threading.Lock()

_NO_OBJECTS = 'no DICOM objects: '


@dataclasses.dataclass(frozen=True)
class Scorer:
  """Scores a study into its result folder; what a worker process is given.

  Attributes:
    output: the folder of the archive's results.
    open_models: opens the models.
    servers: addresses; a study asks its own one, see `pinning`. ('',) for models
      in the process itself.
    configuration: what every result must be made with.
    demo_models: whether the demo models answer.
    patient_key_file: a site's secret, or None.
    with_reports: False leaves report.html out.
  """

  output: str
  open_models: OpenModels
  servers: tuple[str, ...]
  configuration: Configuration
  demo_models: bool = False
  patient_key_file: str | None = None
  with_reports: bool = True

  def __call__(self, study: listing.Study) -> records.Record:
    """Scores one study unless it is done already; never raises for its sake."""
    folder = records.studies_folder(self.output) / study.key
    done = records.read_record(folder)
    if done and self._is_final(done, study):
      return done  # By a worker that was lost before it could report it.
    started = time.monotonic()
    try:
      return self._scored(study, folder, started)
    except errors.StudyRefusedError as error:
      # A file that is out of reach today is no property of the study.
      away = _out_of_reach(study)
      end = (
        (records.FAILED, away)
        if away
        else (records.REFUSED, _for_a_manifest(str(error), study))
      )
    except errors.OutputError as error:
      return self._record(study, records.UNWRITTEN, str(error), started)
    except errors.CovidTFError as error:
      end = (records.FAILED, str(error))
    except Exception as error:  # Its text may hold anything of a header.
      end = (records.FAILED, f'{type(error).__name__} while it was scored')
    record = self._record(study, *end, started)
    return store(self.output, record)

  def _is_final(self, record, study) -> bool:
    return (
      record.status in (records.SCORED, records.REFUSED)
      and record.configuration == self.configuration.digest
      and record.fingerprint == study.fingerprint
    )

  def _scored(self, study, folder, started) -> records.Record:
    volume = _read(
      study, patient_key_file=self.patient_key_file, **self.configuration.reading
    )
    source, notes = self._source(study, volume)
    result, waited = self._analyzed(study, volume)
    result = dataclasses.replace(
      result, warnings=study.warnings + result.warnings + notes
    )
    if self.demo_models or result.demo_models:
      result = result_json.marked_as_demo(result)
    with files.replacing_directory(folder) as temporary:
      if source is not None and self.configuration.dicom is not None:
        dicom_export.write_objects(
          temporary, result, volume, source, self.configuration.dicom
        )
      scored_study.write_all(
        temporary,
        result,
        volume,
        demo_models=result.demo_models,
        with_report=self.with_reports,
      )
      record = self._record(study, records.SCORED, '', started + waited, result)
      records.write_record(temporary, record)
    return record

  def _analyzed(
    self, study: listing.Study, volume: volume_lib.CTVolume
  ) -> tuple[results.CaseResult, float]:
    """The result, and seconds that were spent waiting for the models."""
    read_end = time.monotonic()
    with _MODELS_TURN:
      waited = time.monotonic() - read_end
      result = _servers(self.servers).answered(
        study.key,
        lambda server: pipeline.analyze(
          volume,
          _models(self.open_models, server),
          thresholds=self.configuration.thresholds,
          progress=False,
        ),
      )
    if model_triples(result.models) != self.configuration.models:
      raise errors.ModelError(
        'the models changed while the archive was scored; start again to score the '
        'rest, with --redo or another --output if the new models are to stay.'
      )
    return result, waited

  def _source(
    self, study: listing.Study, volume: volume_lib.CTVolume
  ) -> tuple[source_lib.SourceSeries | None, tuple[str, ...]]:
    """The series that objects are made for, or None, and what is to be said of it.

    A study that has a score but cannot have objects keeps its score: who scores an
    archive would rather read of it in the result than be without.
    """
    if self.configuration.dicom is None:
      return None, ()
    objects.require_extra()
    if not volume.series_uid:
      return None, (f'{_NO_OBJECTS}the image has no DICOM headers',)
    try:
      source = _read_source(study, volume.series_uid, self.configuration.phase)
    except errors.CTReadError as error:
      reason = _for_a_manifest(str(error), study).removeprefix(_NO_OBJECTS)
      return None, (_NO_OBJECTS + reason.removesuffix('.'),)
    objects.require_source_of(volume, source, study.key)
    return source, source.notes

  def _record(
    self, study, status, reason, started, result: results.CaseResult | None = None
  ) -> records.Record:
    return end_record(
      study,
      status,
      reason,
      self.configuration.digest,
      time.monotonic() - started,
      result,
    )


def end_record(
  study: listing.Study,
  status: str,
  reason: str,
  configuration: str,
  seconds: float,
  result: results.CaseResult | None = None,
) -> records.Record:
  """The record of a study that has ended, with or without a result."""
  now = datetime.datetime.now(datetime.UTC)
  acquisition = result.acquisition if result else None
  return records.Record(
    key=study.key,
    status=status,
    reason=reason,
    study_uid=result.study_uid if result else study.study_uid,
    series_uid=result.series_uid if result else study.series_uid or '',
    corona_score_cm3=result.corona_score_cm3 if result else None,
    involved_lung_fraction=result.involved_lung_fraction if result else None,
    lung_volume_cm3=result.lung_volume_cm3 if result else None,
    case_detected=result.case_detected if result else None,
    slice_count=result.shape[0] if result else None,
    warnings=len(result.warnings) if result else 0,
    seconds=round(seconds, 3),
    host=socket.gethostname(),
    finished=now.strftime('%Y-%m-%dT%H:%M:%SZ'),
    configuration=configuration,
    fingerprint=study.fingerprint,
    **{name: getattr(acquisition, name, None) for name in records.ACQUISITION_FIELDS},
    **_measures(result),
  )


def _measures(result: results.CaseResult | None) -> dict[str, Any]:
  return (
    lung_measures.quoted(
      result.densities, result.zone_score, result.zone_score_by_density
    )
    if result
    else {}
  )


def store(output: str | os.PathLike, record: records.Record) -> records.Record:
  """Leaves the record of a study without a result in its folder.

  A score that an earlier configuration gave is not given up for a failure.

  Returns:
    The record; UNWRITTEN if the output takes no more.
  """
  folder = records.studies_folder(output) / record.key
  earlier = records.read_record(folder) if record.status == records.FAILED else None
  if earlier and earlier.status == records.SCORED:
    return record
  try:
    with files.replacing_directory(folder) as temporary:
      records.write_record(temporary, record)
  except errors.OutputError as error:
    return dataclasses.replace(record, status=records.UNWRITTEN, reason=str(error))
  return record


@functools.cache
def _servers(addresses: tuple[str, ...]) -> Servers:
  """The servers as this process knows them; a scorer may be sent anew per study."""
  return Servers(addresses)


@functools.cache
def _models(open_models: OpenModels, server: str) -> interface.Models:
  """Models of this process, opened by the first study that asks (in its turn)."""
  kept = contextlib.ExitStack()
  models = kept.enter_context(open_models(server))
  # They live as long as the worker does. So must their context: where it is a
  # generator, forgetting it would close the models.
  atexit.register(kept.close)
  return models


def _read(study: listing.Study, **options):
  if study.refusal:
    raise errors.CTReadError(study.refusal)
  if study.series_uid is not None:
    options['select'] = None  # A series that the list names comes before the rule.
  if study.path:
    return readers.read_ct(study.path, series_uid=study.series_uid, **options)
  try:
    _require_equal_copies(study)
    paths = _files(study)
  except OSError as error:
    raise errors.CTReadError(f'a file cannot be read ({error.strerror}).') from None
  return readers.read_files(paths, study.series_uid, name=study.key, **options)


def _read_source(
  study: listing.Study, series_uid: str, phase: str | None
) -> source_lib.SourceSeries:
  if study.path:
    return source_lib.read_source(study.path, series_uid, phase=phase)
  return source_lib.read_source_of_files(
    _files(study), series_uid, name=study.key, phase=phase
  )


def _files(study: listing.Study) -> list[str]:
  return [path for place in study.places for path in place.files()]


def _out_of_reach(study: listing.Study) -> str | None:
  """Why the files of a study cannot be opened; None if they can."""
  try:
    paths = [path for place in (*study.places, *study.copies) for path in place.files()]
    for path in (*paths, study.path) if study.path else paths:
      if sources.leads_nowhere(path):
        continue  # In a folder that is within reach.
      with open(path, 'rb'):
        pass
  except OSError as error:
    return (
      f'a file of the study cannot be read ({error.strerror}); was the archive '
      'moved or unmounted meanwhile?'
    )
  return None


def _for_a_manifest(reason: str, study: listing.Study) -> str:
  """A reader's message on one line, in the words of an archive.

  Without its subject, which may be a file named for a patient.
  """
  for name in (study.key, os.path.basename(study.path)):
    reason = reason.removeprefix(f'{name}: ')
  reason = reason.replace('--series UID', 'a CSV with the columns path and series_uid')
  return ' '.join(reason.split())


def _require_equal_copies(study: listing.Study) -> None:
  """Copies are known to be equal by UIDs and sizes; here byte by byte."""
  if not study.copies:
    return
  kept = {digest for place in study.places for digest in _file_digests(place)}
  for place in study.copies:
    if not _file_digests(place) <= kept:
      raise errors.CTReadError(
        'two folders hold copies of the study whose bytes differ; remove the copy '
        'that is not wanted.'
      )


def _file_digests(place: listing.Place) -> set[bytes]:
  digests = set()
  for path in place.files():
    if sources.leads_nowhere(path):
      continue  # The reader refuses the study for it.
    identity = header.identify(path)
    if identity is None or identity.modality not in ('CT', ''):
      continue  # A note, a viewer or a dose report beside the images is no difference.
    with open(path, 'rb') as file:
      digests.add(hashlib.file_digest(file, 'sha256').digest())
  return digests


def remove_leftovers(output: str | os.PathLike, older_than_s: float) -> None:
  """Removes what killed processes were writing; names that start with a dot.

  Args:
    output: the folder of the archive's results.
    older_than_s: what changed later may belong to a worker that still writes.
  """
  for path in records.studies_folder(output).glob('.*'):
    with contextlib.suppress(OSError):
      if time.time() - path.stat().st_mtime >= older_than_s:
        shutil.rmtree(path)

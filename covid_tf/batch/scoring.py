"""One study of an archive: read, scored, written whole; and what became of it.

Runs in worker processes, on two threads each: while one study has the models, the
next one is read and the last one written.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import os
import shutil
import socket
import time
from typing import Any

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import pipeline
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.batch import run_configuration
from covid_tf.batch import worker_models
from covid_tf.readers import header
from covid_tf.readers import sources
from covid_tf.reports import dicom_export
from covid_tf.reports import scored_study
from covid_tf.storage import files
from covid_tf.storage import result_folders
from covid_tf.storage import result_json
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

_NO_OBJECTS = 'no DICOM objects: '


@dataclasses.dataclass(frozen=True)
class Scorer:
  """Scores a study into its result folder; what a worker process is given.

  Attributes:
    output: the folder of the archive's results.
    open_models: opens the models.
    servers: addresses; a study asks its own one, see `worker_models`. ('',) for models
      in the process itself.
    configuration: what every result must be made with.
    demo_models: whether the demo models answer.
    patient_key_file: a site's secret, or None.
    with_reports: False leaves report.html out.
  """

  output: str
  open_models: worker_models.OpenModels
  servers: tuple[str, ...]
  configuration: run_configuration.Configuration
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
    result, waited = worker_models.answered(
      self.open_models,
      self.servers,
      study.key,
      lambda models: pipeline.analyze(
        volume, models, thresholds=self.configuration.thresholds, progress=False
      ),
    )
    if run_configuration.model_triples(result.models) != self.configuration.models:
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
    **{
      name: getattr(acquisition, name, None)
      for name in result_folders.ACQUISITION_FIELDS
    },
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

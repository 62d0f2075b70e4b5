import contextlib
import csv
import dataclasses
import errno
import json
import os
import pathlib
import shutil
import threading

import batch_archive
import fake_models
import odd_series
import pytest

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf.batch import archive
from covid_tf.batch import archive_run
from covid_tf.batch import records
from covid_tf.batch import scoring
from covid_tf.cohort import results
from covid_tf.storage import files
from covid_tf.storage import result_folders
from covid_tf.storage import result_json

_RECORD = records.Record(
  '1.2',
  'refused',
  'no lungs',
  '1.2',
  '',
  None,
  None,
  None,
  None,
  None,
  0,
  1.0,
  'host',
  '2020-03-01T00:00:00Z',
  'c',
  'f',
)


@pytest.fixture(name='source', scope='module')
def _source(tmp_path_factory):
  return batch_archive.write_archive(tmp_path_factory.mktemp('in'), 2)


@pytest.fixture(name='output')
def _output(tmp_path):
  return tmp_path / 'out'


def _rows(output):
  with open(output / records.MANIFEST_FILE, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_an_archive_becomes_results_and_a_manifest(source, output):
  outcome = batch_archive.score_in_process(source, output)
  assert outcome.count(records.SCORED) == outcome.total == 2
  first, second = _rows(output)
  stored = result_json.read_result(output / 'studies' / first['key'])
  assert float(first['corona_score_cm3']) == stored.corona_score_cm3
  assert float(second['corona_score_cm3']) > float(first['corona_score_cm3']) > 0
  assert first['status'] == 'scored' and first['series_uid'] == stored.series_uid
  assert first['study_uid'] == batch_archive.study_uid(1)
  assert [first[name] for name in result_folders.ACQUISITION_FIELDS] == [
    *['', '', 'B40f', ''],
    *['20.0', '20.0', ''],
  ]
  # What a cohort's analysis makes of the same folder.
  loaded, failed = results.load_results(output / 'studies')
  assert len(loaded) == 2 and not failed
  assert tuple(results.MEASURES) == lung_measures.QUOTED
  for name in lung_measures.QUOTED:
    assert [float(row[name]) for row in (first, second)] == [
      result.scores[name] for result in sorted(loaded, key=lambda each: each.path)
    ]


def test_the_same_command_does_nothing_twice(source, output):
  batch_archive.score_in_process(source, output)
  before = (output / records.MANIFEST_FILE).read_bytes()
  outcome = batch_archive.score_in_process(source, output)
  assert outcome.already == {'scored': 2} and outcome.progress.done == 0
  assert (output / records.MANIFEST_FILE).read_bytes() == before


def test_a_study_without_its_whole_result_is_scored_again(source, output):
  batch_archive.score_in_process(source, output)
  rows = _rows(output)
  os.unlink(output / 'studies' / batch_archive.study_uid(1) / 'result.json')
  leftover = output / 'studies' / '.0badc0de.1.2.3'
  leftover.mkdir()
  with open(output / records.MANIFEST_FILE, 'ab') as file:
    file.write(b'torn,lin')
  outcome = batch_archive.score_in_process(source, output)
  assert outcome.already == {'scored': 1} and outcome.count(records.SCORED) == 2
  assert not leftover.exists()
  assert sorted(row['key'] for row in _rows(output)) == [row['key'] for row in rows]


def test_another_configuration_is_refused_unless_told(source, output):
  batch_archive.score_in_process(source, output)
  with pytest.raises(errors.UsageError, match='thresholds differ.*--redo'):
    batch_archive.score_in_process(source, output, map=0.7)
  outcome = batch_archive.score_in_process(source, output, map=0.7, redo=True)
  assert outcome.already == {} and outcome.count(records.SCORED) == 2
  assert len(_rows(output)) == 2
  stored = result_json.read_result(output / 'studies' / batch_archive.study_uid(1))
  assert stored.thresholds.map == 0.7


def test_other_files_of_a_scored_study_are_refused_unless_told(tmp_path, output):
  source = batch_archive.write_archive(tmp_path / 'in', 1)
  batch_archive.score_in_process(source, output)
  (source / 'case01' / '0000.dcm').unlink()
  with pytest.raises(errors.UsageError, match='1 scored studies have other files'):
    batch_archive.score_in_process(source, output)
  batch_archive.score_in_process(source, output, redo=True)
  stored = result_json.read_result(output / 'studies' / batch_archive.study_uid(1))
  assert stored.slice_count == 13


def test_a_refusal_is_kept_without_naming_anybody(tmp_path, output):
  slices = odd_series.series(odd_series.chest_hu())
  odd_series.save(slices[:3] + slices[5:], tmp_path / 'in' / 'Secret^Person')
  outcome = batch_archive.score_in_process(tmp_path / 'in', output)
  assert outcome.count(records.REFUSED) == 1
  (row,) = _rows(output)
  assert row['status'] == 'refused' and row['corona_score_cm3'] == ''
  assert row['reason'] and 'Secret' not in (output / records.MANIFEST_FILE).read_text()
  assert batch_archive.score_in_process(tmp_path / 'in', output).already == {
    'refused': 1
  }
  lines = '\n'.join(
    archive_run.summary_lines(outcome, archive.find_studies(tmp_path / 'in'))
  )
  assert f'1 x {row["reason"]}' in lines


def test_copies_are_compared_byte_by_byte(tmp_path, output):
  source = batch_archive.write_archive(tmp_path / 'in', 1)
  shutil.copytree(source / 'case01', source / 'copy')
  path = source / 'copy' / '0003.dcm'
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  outcome = batch_archive.score_in_process(source, output)
  assert outcome.count(records.REFUSED) == 1
  assert 'bytes differ' in _rows(output)[0]['reason']


def test_an_equal_copy_is_scored_with_a_warning(tmp_path, output):
  source = batch_archive.write_archive(tmp_path / 'in', 1)
  shutil.copytree(source / 'case01', source / 'copy')
  batch_archive.score_in_process(source, output)
  stored = result_json.read_result(output / 'studies' / batch_archive.study_uid(1))
  assert 'second place' in stored.warnings[0]


def test_a_failure_is_tried_again(source, output, monkeypatch):
  def broken(*arguments, **options):
    raise errors.ModelError('the server is away')

  with monkeypatch.context() as patched:
    patched.setattr(scoring.pipeline, 'analyze', broken)
    outcome = batch_archive.score_in_process(source, output)
  assert outcome.count(records.FAILED) == 2
  assert [row['reason'] for row in _rows(output)] == ['the server is away'] * 2
  outcome = batch_archive.score_in_process(source, output)
  assert outcome.already == {} and outcome.count(records.SCORED) == 2
  assert [row['status'] for row in _rows(output)] == ['scored'] * 2


def test_a_failure_does_not_cost_an_earlier_score(source, output, monkeypatch):
  def broken(*arguments, **options):
    raise errors.ModelError('the server is away')

  batch_archive.score_in_process(source, output)
  with monkeypatch.context() as patched:
    patched.setattr(scoring.pipeline, 'analyze', broken)
    batch_archive.score_in_process(source, output, map=0.7, redo=True)
  assert [row['status'] for row in _rows(output)] == ['failed'] * 2
  stored = result_json.read_result(output / 'studies' / batch_archive.study_uid(1))
  assert stored.thresholds.map == 0.6


def test_a_failure_says_nothing_that_a_header_may_hold(source, output, monkeypatch):
  def broken(*arguments, **options):
    raise KeyError('Secret^Person')

  monkeypatch.setattr(scoring.pipeline, 'analyze', broken)
  batch_archive.score_in_process(source, output)
  assert _rows(output)[0]['reason'] == 'KeyError while it was scored'


def test_a_full_disk_stops_the_run_with_everything_whole(source, output, monkeypatch):
  def full(path):
    raise OSError(errno.ENOSPC, 'No space left on device')

  batch_archive.score_in_process(source / 'case01', output)
  with monkeypatch.context() as patched:
    patched.setattr(files, 'force_tree_to_disk', full)
    outcome = batch_archive.score_in_process(source, output)
  assert isinstance(outcome.stopped, errors.OutputError)
  assert 'no space left' in str(outcome.stopped)
  assert sorted(os.listdir(output / 'studies')) == [batch_archive.study_uid(1)]
  assert [row['status'] for row in _rows(output)] == ['scored']
  assert batch_archive.score_in_process(source, output).already == {'scored': 1}


def test_models_stay_open_from_study_to_study(source, output):
  opened = []

  @contextlib.contextmanager
  def open_models(server):
    models = fake_models.FakeModels()
    opened.append(server)
    try:
      yield models
    finally:
      models.segment_lungs = None  # Closed.

  scorer = dataclasses.replace(
    batch_archive.make_scorer(output), open_models=open_models
  )
  ends = [scorer(study) for study in archive.find_studies(source).studies]
  assert [end.status for end in ends] == ['scored', 'scored'] and opened == ['']


def test_failures_in_a_row_end_a_run(source, output):
  study = archive.find_studies(source).studies[0]
  stop = threading.Event()

  def map_studies(function, studies):
    for _ in range(100):
      if stop.is_set():
        return
      yield study, records.Lost('no models on this worker')

  with archive_run.exclusive(output):
    outcome = archive_run.run(
      archive.find_studies(source), batch_archive.make_scorer(output), map_studies, stop
    )
  assert isinstance(outcome.stopped, errors.ModelError)
  assert 'no models on this worker' in str(outcome.stopped)
  assert outcome.progress.counts['failed'] == 20


def test_studies_that_a_run_does_not_reach_keep_their_rows(source, output):
  batch_archive.score_in_process(source, output)
  rows = _rows(output)
  stop = threading.Event()
  stop.set()

  def map_studies(function, studies):
    if not stop.is_set():
      yield from ((study, function(study)) for study in studies)

  with archive_run.exclusive(output):
    archive_run.run(
      archive.find_studies(source),
      batch_archive.make_scorer(output, map=0.7),
      map_studies,
      stop,
      redo=True,
    )
  assert _rows(output) == rows


def test_files_out_of_reach_are_a_failure_that_is_tried_again(tmp_path, output):
  source = batch_archive.write_archive(tmp_path / 'in', 1)
  scorer = batch_archive.make_scorer(output)
  (study,) = archive.find_studies(source).studies
  (source / 'case01').rename(tmp_path / 'unmounted')
  end = scorer(study)
  assert end.status == 'failed' and 'moved or unmounted' in end.reason
  (tmp_path / 'unmounted').rename(source / 'case01')
  assert scorer(study).status == 'scored'


def test_several_series_are_refused_in_the_words_of_an_archive(tmp_path, output):
  source = batch_archive.write_archive(tmp_path / 'in', 1)
  hu = odd_series.chest_hu((20, 16, 16))
  odd_series.save(
    odd_series.series(
      hu,
      study_uid=batch_archive.study_uid(1),
      series_uid='1.2.3',
      spacing_mm=(12.0, 5.0, 5.0),
    ),
    source / 'case01b',
  )
  batch_archive.score_in_process(source, output)
  (row,) = _rows(output)
  assert row['status'] == 'refused' and '\n' not in row['reason']
  assert 'a CSV with the columns path and series_uid' in row['reason']
  assert '--series' not in row['reason'] and '1.2.3' in row['reason']


def test_a_note_beside_a_copy_is_no_difference(tmp_path, output):
  source = batch_archive.write_archive(tmp_path / 'in', 1)
  shutil.copytree(source / 'case01', source / 'copy')
  (source / 'copy' / 'notes.txt').write_text('from the second disc')
  outcome = batch_archive.score_in_process(source, output)
  assert outcome.count(records.SCORED) == 1


def test_two_runs_do_not_share_an_output(output):
  with archive_run.exclusive(output):
    with pytest.raises(errors.UsageError, match='another covid-tf batch'):
      with archive_run.exclusive(output):
        pass


def test_an_output_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.OutputError, match='file'):
    with archive_run.exclusive(tmp_path / 'file' / 'out'):
      pass


def test_records_that_cannot_be_trusted_are_none(tmp_path):
  folder = tmp_path / '1.2.3'
  folder.mkdir()
  for text in ('', '{', '[]', json.dumps({'key': '1.2.3'})):
    (folder / records.RECORD_FILE).write_text(text)
    assert records.read_record(folder) is None
  assert records.read_record(tmp_path / 'gone') is None


def test_a_manifest_holds_no_formula(tmp_path):
  record = dataclasses.replace(_RECORD, reason='=cmd()')
  records.write_manifest(tmp_path / 'm.csv', [record])
  (row,) = csv.DictReader((tmp_path / 'm.csv').open(encoding='utf-8'))
  assert row['reason'] == ' =cmd()'
  assert pathlib.Path(tmp_path / 'm.csv').read_text().count('\n') == 2


def test_a_row_that_does_not_fit_is_taken_back(tmp_path):
  records.write_manifest(tmp_path / records.MANIFEST_FILE, [_RECORD])
  before = (tmp_path / records.MANIFEST_FILE).read_bytes()
  with records.Appender(tmp_path) as rows:
    rows._file = _Full(rows._file)
    with pytest.raises(errors.OutputError, match='No space'):
      rows.append(_RECORD)
  assert (tmp_path / records.MANIFEST_FILE).read_bytes() == before


class _Full:
  """A file on a disk that takes ten more bytes."""

  def __init__(self, file):
    self._file = file

  def write(self, data):
    return self._file.write(data[:10])

  def __getattr__(self, name):
    return getattr(self._file, name)


def test_records_of_before_acquisition_are_read(source, output):
  batch_archive.score_in_process(source, output)
  path = output / 'studies' / batch_archive.study_uid(1) / records.RECORD_FILE
  record = json.loads(path.read_text())
  for name in result_folders.ACQUISITION_FIELDS:
    del record[name]
  path.write_text(json.dumps(record))
  assert batch_archive.score_in_process(source, output).already == {'scored': 2}
  assert _rows(output)[0]['kernel'] == '' and _rows(output)[1]['kernel'] == 'B40f'


def test_no_cell_of_the_manifest_is_a_formula(source, output):
  batch_archive.score_in_process(source, output)
  record = next(records.read_records(output))
  hostile = dataclasses.replace(record, kernel='=1+1', model='-2', contrast=True)
  records.write_manifest(output / records.MANIFEST_FILE, [hostile])
  (row,) = _rows(output)
  assert (row['kernel'], row['model'], row['contrast']) == (' =1+1', ' -2', 'true')

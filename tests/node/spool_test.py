"""What has been taken stays, once; what lacks something says so."""

import errno
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import warnings

import dicom_series
import listening
import numpy as np
import pydicom
import pytest
import small_instances as instances
import synthetic_case

from covid_tf import errors
from covid_tf.batch import archive
from covid_tf.node import arrival
from covid_tf.node import spool as spool_lib
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

ABORTED, LOST = spool_lib.Ending.ABORTED, spool_lib.Ending.LOST
RELEASED = spool_lib.Ending.RELEASED
NEW, AGAIN = spool_lib.Taken.NEW, spool_lib.Taken.AGAIN
DIFFERENT = spool_lib.Taken.DIFFERENT


@pytest.fixture(name='spool')
def _spool(tmp_path):
  with spool_lib.Spool(tmp_path / 'spool') as spool:
    yield spool


def give(spool, association, *numbers, **options):
  """Takes slices of one association; the last answer."""
  for number in numbers:
    path = instances.save(instances.instance(number, **options), spool.new_file())
    taken = spool.take(path, association, 'SCANNER')
    assert not path.exists()
  return taken


def test_a_whole_study(spool):
  assert give(spool, 'a', 1, 2) is NEW
  running = spool.study(instances.STUDY_UID)
  assert running.open_associations == 1 and not running.interrupted
  spool.end('a', RELEASED)
  kept = spool.study(instances.STUDY_UID)
  assert kept.counts == {instances.SERIES_UID: 2}
  assert kept.open_associations == 0 and not kept.interrupted
  assert kept.last_activity_s >= running.last_activity_s
  assert spool.studies() == (kept,)
  assert spool.has_instances(kept.study_uid) == {
    instances.SERIES_UID: {f'{instances.SERIES_UID}.{number}' for number in (1, 2)}
  }
  assert not list((spool.folder / 'marks' / kept.study_uid).iterdir())
  assert not listening.arriving(spool)


def test_batch_reads_what_it_keeps(spool):
  give(spool, 'a', 1, 2, 3)
  give(spool, 'b', 2, syntax='1.2.840.10008.1.2')
  (study,) = archive.find_studies(spool.study(instances.STUDY_UID).folder).studies
  assert study.study_uid == instances.STUDY_UID and study.refusal is None
  before = study.fingerprint
  give(spool, 'c', 4)
  (study,) = archive.find_studies(spool.study(instances.STUDY_UID).folder).studies
  assert study.fingerprint != before


def test_generation_changes_with_new_instances_only(spool):
  give(spool, 'a', 1)
  first = spool.study(instances.STUDY_UID).generation
  assert give(spool, 'a', 1) is AGAIN
  assert spool.study(instances.STUDY_UID).generation == first
  give(spool, 'a', 2)
  assert spool.study(instances.STUDY_UID).generation != first


@pytest.mark.parametrize(
  'syntax',
  (
    '1.2.840.10008.1.2',
    '1.2.840.10008.1.2.1.99',
    '1.2.840.10008.1.2.2',
    '1.2.840.10008.1.2.5',
  ),
)
def test_same_content_in_another_transfer_syntax(spool, syntax):
  assert give(spool, 'a', 1) is NEW
  assert give(spool, 'b', 1, syntax=syntax) is AGAIN
  assert spool.study(instances.STUDY_UID).conflicts == 0


@pytest.mark.parametrize(
  'change',
  (
    lambda dataset: setattr(dataset, 'PixelData', bytes(128)),
    lambda dataset: setattr(dataset, 'PatientID', 'ID-4712'),
    lambda dataset: setattr(dataset, 'RescaleIntercept', 0.0),
  ),
)
def test_other_content_under_the_same_uid(spool, tmp_path, change):
  give(spool, 'a', 1)
  (path,) = spool.folder.glob('studies/*/*/*.dcm')
  before = path.read_bytes()
  assert give(spool, 'b', 1, change=change) is DIFFERENT
  assert give(spool, 'b', 1, change=change) is DIFFERENT
  assert path.read_bytes() == before
  assert spool.study(instances.STUDY_UID).conflicts == 1
  spool.close()
  with spool_lib.Spool(spool.folder) as again:
    assert again.study(instances.STUDY_UID).conflicts == 1


def test_an_instance_in_two_series_of_its_study(spool):
  give(spool, 'a', 1)

  def move(dataset):
    dataset.SeriesInstanceUID = f'{instances.STUDY_UID}.2'

  assert give(spool, 'a', 1, change=move) is DIFFERENT
  assert spool.study(instances.STUDY_UID).counts == {instances.SERIES_UID: 1}


@pytest.mark.parametrize(
  ('ending', 'words'), ((ABORTED, 'SCANNER aborted'), (LOST, 'SCANNER was lost'))
)
def test_interrupted_until_somebody_completes_it(spool, ending, words):
  give(spool, 'a', 1, 2)
  give(spool, 'a', 1, series_uid=f'{instances.STUDY_UID}.2')
  spool.end('a', ending)
  found = spool.study(instances.STUDY_UID).interrupted
  assert set(found) == {instances.SERIES_UID, f'{instances.STUDY_UID}.2'}
  assert all(words in reason for reason in found.values())
  give(spool, 'b', 2)  # Again, which says that its sender tries again.
  assert len(spool.study(instances.STUDY_UID).interrupted) == 2
  spool.end('b', RELEASED)
  assert set(spool.study(instances.STUDY_UID).interrupted) == {
    f'{instances.STUDY_UID}.2'
  }


def test_interruptions_outlast_the_process(spool):
  give(spool, 'a', 1)
  spool.end('a', ABORTED)
  give(spool, 'b', 1, study_uid='1.2.3')
  give(spool, 'c', 1, study_uid='1.2.4')
  spool.end('c', RELEASED)
  spool.close()
  with spool_lib.Spool(spool.folder) as again:
    found = {kept.study_uid: kept for kept in again.studies()}
    assert 'SCANNER aborted' in str(found[instances.STUDY_UID].interrupted)
    assert 'node was stopped' in found['1.2.3'].interrupted['1.2.3.1']
    assert not found['1.2.4'].interrupted
    assert {kept.open_associations for kept in found.values()} == {0}
    again.accept_as_whole('1.2.3')
    again.accept_as_whole('9.9')
    assert not again.study('1.2.3').interrupted
    again.close()
  with spool_lib.Spool(spool.folder) as third:
    assert not third.study('1.2.3').interrupted
    assert third.study(instances.STUDY_UID).interrupted


def test_a_running_association_does_not_clear_another(spool):
  give(spool, 'a', 1)
  give(spool, 'b', 2)
  spool.end('b', RELEASED)
  spool.end('a', LOST)
  assert spool.study(instances.STUDY_UID).interrupted


def test_an_instance_that_breaks_off_is_lacking_until_it_is_kept(spool):
  whole = instances.save(instances.instance(1), spool.folder / 'whole').read_bytes()

  def begin():
    path = spool.new_file()
    path.write_bytes(whole[:-50])
    return path

  spool.drop(begin(), 'a', 'SCANNER')
  spool.end('a', LOST)
  assert spool.studies() == ()
  give(spool, 'b', 2)  # An association for each instance: it does not come back.
  spool.end('b', RELEASED)
  assert 'did not come' in str(spool.study(instances.STUDY_UID).interrupted)
  give(spool, 'c', 1)
  spool.end('c', RELEASED)
  assert not spool.study(instances.STUDY_UID).interrupted
  spool.drop(begin(), 'd', 'SCANNER')
  spool.end('d', LOST)
  assert not spool.study(instances.STUDY_UID).interrupted
  path = spool.new_file()
  path.touch()
  spool.drop(path, 'e', 'SCANNER')
  assert not path.exists()


def test_a_killed_node_knows_which_instance_had_begun(spool):
  give(spool, 'a', 1)
  spool.end('a', RELEASED)
  whole = instances.save(instances.instance(2), spool.folder / 'whole').read_bytes()
  spool.new_file().write_bytes(whole[:-50])
  spool.new_file().write_bytes(b'')
  spool.close()
  with spool_lib.Spool(spool.folder) as again:
    assert not listening.arriving(again)
    assert 'did not come' in str(again.study(instances.STUDY_UID).interrupted)


def refuse(spool, association, change, number=1):
  path = spool.new_file()
  with warnings.catch_warnings(action='ignore'):  # Of UIDs that a test spoils.
    instances.save(instances.instance(number, change=change), path)
  with pytest.raises(arrival.RefusedError) as caught:
    spool.take(path, association, 'SCANNER')
  assert not path.exists() and len(f'refused: {caught.value}') <= 64
  return caught.value


def test_a_refused_instance_leaves_its_series_lacking(spool):
  give(spool, 'a', 1)
  refuse(spool, 'a', lambda dataset: delattr(dataset, 'PixelData'), 2)
  spool.end('a', RELEASED)
  give(spool, 'b', 3)
  spool.end('b', RELEASED)
  assert 'was refused' in str(spool.study(instances.STUDY_UID).interrupted)
  give(spool, 'c', 2)
  spool.end('c', RELEASED)
  assert not spool.study(instances.STUDY_UID).interrupted


def test_who_sends_nothing_but_what_is_damaged_fills_nothing(spool, monkeypatch):
  monkeypatch.setattr(spool_lib, '_MOST_EMPTY', 3)
  for number in range(5):
    path = instances.save(
      instances.instance(1, study_uid=f'1.2.{number}'), spool.new_file()
    )
    path.write_bytes(path.read_bytes()[:-50])
    spool.drop(path, f'a{number}', 'SCANNER')
    spool.end(f'a{number}', LOST)
  marks = spool.folder / 'marks'
  assert sorted(os.listdir(marks)) == ['1.2.0', '1.2.1', '1.2.2']
  spool.close()
  os.utime(marks / '1.2.0', (0, 0))
  with spool_lib.Spool(spool.folder) as again:
    assert sorted(os.listdir(marks)) == ['1.2.1', '1.2.2']
    give(again, 'b', 2, study_uid='1.2.1')
    assert again.study('1.2.1').interrupted


def test_an_unknown_instance_was_refused(spool):
  give(spool, 'a', 1)
  refuse(spool, 'a', lambda dataset: setattr(dataset, 'StudyInstanceUID', '../../x'))
  spool.end('a', RELEASED)
  assert 'was refused' in str(spool.study(instances.STUDY_UID).interrupted)
  assert os.listdir(spool.folder / 'studies') == [instances.STUDY_UID]


def test_one_instance_from_two_associations_at_once(spool, monkeypatch):
  waiting = threading.Barrier(2)
  force = spool_lib.files.force_to_disk

  def slow(path):
    if pathlib.Path(path).suffix == '.part':
      waiting.wait(10)
    force(path)

  monkeypatch.setattr(spool_lib.files, 'force_to_disk', slow)
  found = []
  threads = [
    threading.Thread(target=lambda name=name: found.append(give(spool, name, 1)))
    for name in 'ab'
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(taken.value for taken in found) == ['again', 'new']
  assert spool.study(instances.STUDY_UID).counts == {instances.SERIES_UID: 1}


def test_nothing_is_answered_before_the_disk_has_it(spool, monkeypatch):
  forced = []
  force = spool_lib.files.force_to_disk

  def noted(path):
    forced.append(os.path.relpath(path, spool.folder))
    force(path)

  monkeypatch.setattr(spool_lib.files, 'force_to_disk', noted)
  give(spool, 'a', 1)
  assert forced[0] == 'incoming' and forced[1].startswith('incoming/')
  assert forced[2:] == [f'marks/{instances.STUDY_UID}', 'marks']
  forced.clear()
  give(spool, 'a', 2)
  assert len(forced) == 1 and forced[0].startswith('incoming/')
  forced.clear()
  give(spool, 'a', 2)  # It is on the disk already.
  assert not forced


def test_the_machine_stopped_before_final_names_were_on_the_disk(spool):
  """What was forced to the disk is all that is left: no final name of these."""
  give(spool, 'a', 1)
  spool.end('a', RELEASED)
  paths = []
  for number in (2, 3, 4):
    path = spool.new_file()
    instances.save(instances.instance(number), path)
    arrival.seal(path)
    paths.append(path)
  again = spool.new_file()
  instances.save(instances.instance(2), again)
  arrival.seal(again)
  other = again.with_name('f' * 40)  # The last in order of name.
  change = lambda dataset: setattr(dataset, 'PatientID', 'x')  # noqa: E731
  instances.save(instances.instance(2, change=change), other)
  arrival.seal(other)
  content = bytearray(paths[1].read_bytes())
  content[-9] ^= 1  # Written in part, with the size of the whole.
  paths[1].write_bytes(content)
  paths[2].write_bytes(content[:-20])
  spool.close()
  with spool_lib.Spool(spool.folder) as later:
    assert not listening.arriving(later)
    kept = later.study(instances.STUDY_UID)
    assert later.has_instances(kept.study_uid) == {
      instances.SERIES_UID: {f'{instances.SERIES_UID}.{number}' for number in (1, 2)}
    }
    assert 'did not come' in kept.interrupted[instances.SERIES_UID]
    assert kept.conflicts == 1


def test_a_full_disk_is_no_fault_of_the_instance(spool, monkeypatch):
  give(spool, 'a', 1)

  def full(path):
    raise OSError(errno.ENOSPC, 'no space', os.fspath(path))

  monkeypatch.setattr(spool_lib.files, 'force_to_disk', full)
  with pytest.raises(OSError):
    give(spool, 'a', 2)
  with pytest.raises(OSError):
    give(spool, 'b', 1, study_uid='1.2.3')
  monkeypatch.undo()
  spool.end('a', LOST)
  spool.end('b', LOST)
  assert spool.study(instances.STUDY_UID).counts == {instances.SERIES_UID: 1}
  assert spool.study(instances.STUDY_UID).interrupted
  assert spool.study('1.2.3') is None
  assert not listening.arriving(spool)


def test_names_that_a_file_system_cannot_confirm(spool, monkeypatch):
  force = spool_lib.files.force_to_disk

  def names_fail(path):
    if os.path.isdir(path):
      raise OSError(errno.EINVAL, 'invalid')
    force(path)

  monkeypatch.setattr(spool_lib.files, 'force_to_disk', names_fail)
  assert give(spool, 'a', 1) is NEW


def test_space(tmp_path):
  with spool_lib.Spool(tmp_path / 'a', reserve_bytes=1) as spool:
    assert spool.free_bytes() > 1 and not spool.is_nearly_full()
  with spool_lib.Spool(tmp_path / 'a', reserve_bytes=1 << 60) as spool:
    assert spool.is_nearly_full()


def test_removing(spool):
  give(spool, 'a', 1)
  with pytest.raises(spool_lib.InUseError, match='no open association is required'):
    spool.remove(instances.STUDY_UID)
  spool.end('a', ABORTED)
  spool.remove(instances.STUDY_UID)
  spool.remove(instances.STUDY_UID)
  assert spool.studies() == () and spool.study(instances.STUDY_UID) is None
  assert not list(spool.folder.glob('[mrs]*/*'))
  assert give(spool, 'b', 1) is NEW


def test_removing_may_be_killed(spool):
  give(spool, 'a', 1)
  spool.end('a', RELEASED)
  half = spool.folder / 'removed' / 'x' / 'studies'
  half.mkdir(parents=True)
  spool.close()
  with spool_lib.Spool(spool.folder) as again:
    assert not list((again.folder / 'removed').iterdir())


def test_one_node_has_a_spool(spool):
  with pytest.raises(errors.UsageError, match='another covid-tf node'):
    spool_lib.Spool(spool.folder)
  spool.close()
  spool_lib.Spool(spool.folder).close()


def test_a_place_that_is_a_file(tmp_path):
  (tmp_path / 'spool').touch()
  with pytest.raises(errors.OutputError, match='file stands where a folder'):
    spool_lib.Spool(tmp_path / 'spool')


def test_for_its_owner_only(spool):
  assert spool.folder.stat().st_mode & 0o777 == 0o700


def test_what_does_not_belong_there_is_left_alone(spool):
  give(spool, 'a', 1)
  spool.end('a', RELEASED)
  spool.close()
  (spool.folder / 'studies' / 'lost+found').mkdir()
  (spool.folder / 'studies' / '1.2.9').mkdir()
  (spool.folder / 'studies' / instances.STUDY_UID / 'notes.txt').touch()
  (spool.folder / 'marks' / instances.STUDY_UID / 'x').touch()
  (spool.folder / 'marks' / instances.STUDY_UID / '1@a.open').touch()
  with spool_lib.Spool(spool.folder) as again:
    (kept,) = again.studies()
    assert kept.counts == {instances.SERIES_UID: 1}
    assert 'while a sender was sending' in kept.interrupted['1']


_GIVE_FOR_EVER = """
import pathlib, shutil, sys
from covid_tf.node import spool
sources = sorted(pathlib.Path(sys.argv[2]).iterdir())
with spool.Spool(sys.argv[1]) as kept:
  for turn in range(10**6):
    for source in sources:
      path = kept.new_file()
      shutil.copyfile(source, path)
      kept.take(path, f'{turn}-{source.stem}', 'SCANNER')
      print(source.stem, flush=True)
      kept.end(f'{turn}-{source.stem}', spool.Ending.RELEASED)
"""


def test_killed_at_any_moment_it_keeps_what_it_answered(tmp_path):
  sources = tmp_path / 'sources'
  sources.mkdir()
  for number in range(100, 300):  # Files of one size.
    instances.save(instances.instance(number), sources / f'{number}.dcm')
  moments, answered = random.Random(26), set()
  for _ in range(4):
    with subprocess.Popen(
      [sys.executable, '-c', _GIVE_FOR_EVER, tmp_path / 'spool', sources],
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    ) as process:
      answered.add(int(process.stdout.readline()))
      time.sleep(moments.uniform(0, 0.3))
      process.send_signal(signal.SIGKILL)
      answered.update(int(line) for line in process.stdout if line.endswith('\n'))
    with spool_lib.Spool(tmp_path / 'spool') as spool:
      kept = spool.has_instances(instances.STUDY_UID)[instances.SERIES_UID]
      assert {f'{instances.SERIES_UID}.{number}' for number in answered} <= kept
      for path in spool.folder.glob('studies/*/*/*.dcm'):
        assert path.stat().st_size == (sources / '100.dcm').stat().st_size


def test_our_own_objects_sent_back_are_no_new_images(spool, tmp_path):
  pytest.importorskip('highdicom')
  shape = (9, 50, 76)
  affine = synthetic_case.axial_affine((30.0, 5.0, 5.0), shape)
  volume = synthetic_case.make_volume(affine, shape)
  study = dicom_series.write(tmp_path / 'ct', volume)
  picture = objects.KeyPicture(np.zeros((32, 32, 3), np.uint8), 'title', 'What it is.')
  made = objects.write_objects(
    tmp_path / 'result',
    synthetic_case.make_result(volume),
    source_lib.read_source(study),
    pictures=(picture,),
  )
  assert len(made) == 4

  def take(paths, association):
    for path in paths:
      new = instances.save(pydicom.dcmread(path), spool.new_file())
      assert spool.take(new, association, 'PACS') is NEW
    spool.end(association, RELEASED)
    (kept,) = spool.studies()
    (found,) = archive.find_studies(kept.folder).studies
    return sum(kept.counts.values()), found

  count, before = take(sorted(study.iterdir()), 'a')
  again, after = take(made, 'b')
  assert (count, again) == (9, 13)
  assert after.fingerprint == before.fingerprint
  assert after.series_uids == before.series_uids and after.refusal is None

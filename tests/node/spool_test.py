"""What has been taken stays, once; what lacks something says so."""

import os
import pathlib
import threading
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


def test_a_whole_study(spool):
  assert instances.give(spool, 'a', 1, 2) is NEW
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
  instances.give(spool, 'a', 1, 2, 3)
  instances.give(spool, 'b', 2, syntax='1.2.840.10008.1.2')
  (study,) = archive.find_studies(spool.study(instances.STUDY_UID).folder).studies
  assert study.study_uid == instances.STUDY_UID and study.refusal is None
  before = study.fingerprint
  instances.give(spool, 'c', 4)
  (study,) = archive.find_studies(spool.study(instances.STUDY_UID).folder).studies
  assert study.fingerprint != before


def test_generation_changes_with_new_instances_only(spool):
  instances.give(spool, 'a', 1)
  first = spool.study(instances.STUDY_UID).generation
  assert instances.give(spool, 'a', 1) is AGAIN
  assert spool.study(instances.STUDY_UID).generation == first
  instances.give(spool, 'a', 2)
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
  assert instances.give(spool, 'a', 1) is NEW
  assert instances.give(spool, 'b', 1, syntax=syntax) is AGAIN
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
  instances.give(spool, 'a', 1)
  (path,) = spool.folder.glob('studies/*/*/*.dcm')
  before = path.read_bytes()
  assert instances.give(spool, 'b', 1, change=change) is DIFFERENT
  assert instances.give(spool, 'b', 1, change=change) is DIFFERENT
  assert path.read_bytes() == before
  assert spool.study(instances.STUDY_UID).conflicts == 1
  spool.close()
  with spool_lib.Spool(spool.folder) as again:
    assert again.study(instances.STUDY_UID).conflicts == 1


def test_an_instance_in_two_series_of_its_study(spool):
  instances.give(spool, 'a', 1)

  def move(dataset):
    dataset.SeriesInstanceUID = f'{instances.STUDY_UID}.2'

  assert instances.give(spool, 'a', 1, change=move) is DIFFERENT
  assert spool.study(instances.STUDY_UID).counts == {instances.SERIES_UID: 1}


@pytest.mark.parametrize(
  ('ending', 'words'), ((ABORTED, 'SCANNER aborted'), (LOST, 'SCANNER was lost'))
)
def test_interrupted_until_somebody_completes_it(spool, ending, words):
  instances.give(spool, 'a', 1, 2)
  instances.give(spool, 'a', 1, series_uid=f'{instances.STUDY_UID}.2')
  spool.end('a', ending)
  found = spool.study(instances.STUDY_UID).interrupted
  assert set(found) == {instances.SERIES_UID, f'{instances.STUDY_UID}.2'}
  assert all(words in reason for reason in found.values())
  instances.give(spool, 'b', 2)  # Again, which says that its sender tries again.
  assert len(spool.study(instances.STUDY_UID).interrupted) == 2
  spool.end('b', RELEASED)
  assert set(spool.study(instances.STUDY_UID).interrupted) == {
    f'{instances.STUDY_UID}.2'
  }


def test_a_running_association_does_not_clear_another(spool):
  instances.give(spool, 'a', 1)
  instances.give(spool, 'b', 2)
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
  # An association for each instance: it does not come back.
  instances.give(spool, 'b', 2)
  spool.end('b', RELEASED)
  assert 'did not come' in str(spool.study(instances.STUDY_UID).interrupted)
  instances.give(spool, 'c', 1)
  spool.end('c', RELEASED)
  assert not spool.study(instances.STUDY_UID).interrupted
  spool.drop(begin(), 'd', 'SCANNER')
  spool.end('d', LOST)
  assert not spool.study(instances.STUDY_UID).interrupted
  path = spool.new_file()
  path.touch()
  spool.drop(path, 'e', 'SCANNER')
  assert not path.exists()


def refuse(spool, association, change, number=1):
  path = spool.new_file()
  with warnings.catch_warnings(action='ignore'):  # Of UIDs that a test spoils.
    instances.save(instances.instance(number, change=change), path)
  with pytest.raises(arrival.RefusedError) as caught:
    spool.take(path, association, 'SCANNER')
  assert not path.exists() and len(f'refused: {caught.value}') <= 64
  return caught.value


def test_a_refused_instance_leaves_its_series_lacking(spool):
  instances.give(spool, 'a', 1)
  refuse(spool, 'a', lambda dataset: delattr(dataset, 'PixelData'), 2)
  spool.end('a', RELEASED)
  instances.give(spool, 'b', 3)
  spool.end('b', RELEASED)
  assert 'was refused' in str(spool.study(instances.STUDY_UID).interrupted)
  instances.give(spool, 'c', 2)
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
    instances.give(again, 'b', 2, study_uid='1.2.1')
    assert again.study('1.2.1').interrupted


def test_an_unknown_instance_was_refused(spool):
  instances.give(spool, 'a', 1)
  refuse(spool, 'a', lambda dataset: setattr(dataset, 'StudyInstanceUID', '../../x'))
  spool.end('a', RELEASED)
  assert 'was refused' in str(spool.study(instances.STUDY_UID).interrupted)
  assert os.listdir(spool.folder / 'studies') == [instances.STUDY_UID]


def test_one_instance_from_two_associations_at_once(spool, monkeypatch):
  waiting = threading.Barrier(2)
  force = spool_lib.files.force_to_disk

  def slow(path):
    if pathlib.Path(path).suffix == '.part':
      waiting.wait(60)
    force(path)

  monkeypatch.setattr(spool_lib.files, 'force_to_disk', slow)
  found = []
  threads = [
    threading.Thread(
      target=lambda name=name: found.append(instances.give(spool, name, 1))
    )
    for name in 'ab'
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(taken.value for taken in found) == ['again', 'new']
  assert spool.study(instances.STUDY_UID).counts == {instances.SERIES_UID: 1}


def test_space(tmp_path):
  with spool_lib.Spool(tmp_path / 'a', reserve_bytes=1) as spool:
    assert spool.free_bytes() > 1 and not spool.is_nearly_full()
  with spool_lib.Spool(tmp_path / 'a', reserve_bytes=1 << 60) as spool:
    assert spool.is_nearly_full()


def test_removing(spool):
  instances.give(spool, 'a', 1)
  with pytest.raises(spool_lib.InUseError, match='no open association is required'):
    spool.remove(instances.STUDY_UID)
  spool.end('a', ABORTED)
  spool.remove(instances.STUDY_UID)
  spool.remove(instances.STUDY_UID)
  assert spool.studies() == () and spool.study(instances.STUDY_UID) is None
  assert not list(spool.folder.glob('[mrs]*/*'))
  assert instances.give(spool, 'b', 1) is NEW


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

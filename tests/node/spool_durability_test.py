"""What a spool has on the disk, and what a stop at any moment leaves of it."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import listening
import pytest
import small_instances as instances

from covid_tf.node import arrival
from covid_tf.node import spool as spool_lib

ABORTED, LOST = spool_lib.Ending.ABORTED, spool_lib.Ending.LOST
RELEASED = spool_lib.Ending.RELEASED
NEW, AGAIN = spool_lib.Taken.NEW, spool_lib.Taken.AGAIN


@pytest.fixture(name='spool')
def _spool(tmp_path):
  with spool_lib.Spool(tmp_path / 'spool') as spool:
    yield spool


def test_interruptions_outlast_the_process(spool):
  instances.give(spool, 'a', 1)
  spool.end('a', ABORTED)
  instances.give(spool, 'b', 1, study_uid='1.2.3')
  instances.give(spool, 'c', 1, study_uid='1.2.4')
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


def test_a_killed_node_knows_which_instance_had_begun(spool):
  instances.give(spool, 'a', 1)
  spool.end('a', RELEASED)
  whole = instances.save(instances.instance(2), spool.folder / 'whole').read_bytes()
  spool.new_file().write_bytes(whole[:-50])
  spool.new_file().write_bytes(b'')
  spool.close()
  with spool_lib.Spool(spool.folder) as again:
    assert not listening.arriving(again)
    assert 'did not come' in str(again.study(instances.STUDY_UID).interrupted)


def test_nothing_is_answered_before_the_disk_has_it(spool, monkeypatch):
  forced = []
  force = spool_lib.files.force_to_disk

  def noted(path):
    forced.append(os.path.relpath(path, spool.folder))
    force(path)

  monkeypatch.setattr(spool_lib.files, 'force_to_disk', noted)
  instances.give(spool, 'a', 1)
  assert forced[0] == 'incoming' and forced[1].startswith('incoming/')
  assert forced[2:] == [f'marks/{instances.STUDY_UID}', 'marks']
  forced.clear()
  instances.give(spool, 'a', 2)
  assert len(forced) == 1 and forced[0].startswith('incoming/')
  forced.clear()
  instances.give(spool, 'a', 2)  # It is on the disk already.
  assert not forced


def test_the_machine_stopped_before_final_names_were_on_the_disk(spool):
  """What was forced to the disk is all that is left: no final name of these."""
  instances.give(spool, 'a', 1)
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
  instances.give(spool, 'a', 1)

  def full(path):
    raise OSError(errno.ENOSPC, 'no space', os.fspath(path))

  monkeypatch.setattr(spool_lib.files, 'force_to_disk', full)
  with pytest.raises(OSError):
    instances.give(spool, 'a', 2)
  with pytest.raises(OSError):
    instances.give(spool, 'b', 1, study_uid='1.2.3')
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
  assert instances.give(spool, 'a', 1) is NEW


def test_removing_may_be_killed(spool):
  instances.give(spool, 'a', 1)
  spool.end('a', RELEASED)
  half = spool.folder / 'removed' / 'x' / 'studies'
  half.mkdir(parents=True)
  spool.close()
  with spool_lib.Spool(spool.folder) as again:
    assert not list((again.folder / 'removed').iterdir())


def test_what_does_not_belong_there_is_left_alone(spool):
  instances.give(spool, 'a', 1)
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

"""Where a spool's files lie, and what a killed process may leave of them."""

import pytest

from covid_tf.node import arrival
from covid_tf.node import spool_folder


@pytest.fixture(name='disk')
def _disk(tmp_path):
  disk = spool_folder.SpoolFolder(tmp_path)
  disk.prepare()
  return disk


def _keep(disk, *uids):
  path = disk.path_of(arrival.Identity(*uids, '1.2.840.10008.5.1.4.1.1.2'))
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()
  return path


def test_only_uids_are_studies(disk):
  for name in ('1.2', '1.10', 'lost+found', '1.2x', '.'):
    disk.study(name).mkdir(exist_ok=True)
  assert disk.study_uids() == ['1.10', '1.2']
  assert disk.marked_uids() == []


def test_every_file_is_new_and_there(disk):
  made = [disk.new_file() for _ in range(70)]
  assert len(set(made)) == 70 and not any(path.stat().st_size for path in made)
  assert set(made) <= set(disk.incoming())
  assert disk.incoming() == sorted(disk.incoming())


def test_files_of_a_study_are_counted_by_series(disk):
  _keep(disk, '1.2', '1.3', '1.4')
  path = _keep(disk, '1.2', '1.3', '1.5')
  (path.parent / 'notes.txt').touch()
  (disk.study('1.2') / '1.9').mkdir()
  (disk.study('1.2') / 'note').touch()
  assert disk.counts('1.2') == {'1.3': 2}
  assert sorted(disk.instances('1.2', '1.3')) == ['1.4', '1.5']
  assert disk.instances('1.2', '1.7') == []


def test_what_is_set_aside_is_gone_from_its_place_at_once(disk, tmp_path):
  _keep(disk, '1.2', '1.3', '1.4')
  disk.marks('1.2').mkdir()
  gone = disk.set_aside('1.2')
  assert disk.study_uids() == [] and disk.marked_uids() == []
  assert sorted(path.name for path in gone.iterdir()) == ['marks', 'studies']
  again = spool_folder.SpoolFolder(tmp_path)  # The process was killed meanwhile.
  again.prepare()
  assert not gone.exists() and list((tmp_path / 'removed').iterdir()) == []

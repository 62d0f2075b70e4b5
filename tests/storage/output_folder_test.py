import errno
import os

import pytest

from covid_tf import errors
from covid_tf.storage import files

_NAMES = ('mask', 'report', 'result')


def _fill(folder, text):
  for name in _NAMES:
    (folder / name).write_text(text)


def _content(folder):
  return {name: (folder / name).read_text() for name in os.listdir(folder)}


@pytest.mark.parametrize('before', ['nothing', 'empty', 'result'])
def test_all_files_appear(tmp_path, before):
  target = tmp_path / 'a' / 'out'
  if before != 'nothing':
    target.mkdir(parents=True)
  if before == 'result':
    _fill(target, 'old')
    (target / 'notes.txt').write_text('mine')
  with files.filling_folder(target, _NAMES) as folder:
    _fill(folder, 'new')
  kept = {'notes.txt': 'mine'} if before == 'result' else {}
  assert _content(target) == dict.fromkeys(_NAMES, 'new') | kept
  assert os.listdir(target.parent) == ['out']


@pytest.mark.parametrize('before', ['nothing', 'result'])
@pytest.mark.parametrize('failure', [ValueError, KeyboardInterrupt])
def test_nothing_changes_when_the_block_fails(tmp_path, before, failure):
  target = tmp_path / 'out'
  if before == 'result':
    target.mkdir()
    _fill(target, 'old')
  with pytest.raises(failure):
    with files.filling_folder(target, _NAMES) as folder:
      (folder / 'mask').write_text('half')
      raise failure
  if before == 'result':
    assert _content(target) == dict.fromkeys(_NAMES, 'old')
  else:
    assert not os.listdir(tmp_path)


def _lose_result(folder, monkeypatch):
  """The new file `result` does not arrive in a folder; an old one still comes back."""
  rename = os.rename

  def failing(source, target):
    is_new = '/old/' not in os.fspath(source)
    if os.fspath(target) == str(folder / 'result') and is_new:
      raise OSError(errno.EIO, 'device', os.fspath(source))
    rename(source, target)

  monkeypatch.setattr(os, 'rename', failing)


def test_nothing_changes_when_a_file_does_not_arrive(tmp_path, monkeypatch):
  _fill(tmp_path, 'old')
  _lose_result(tmp_path, monkeypatch)
  with pytest.raises(errors.OutputError):
    with files.filling_folder(tmp_path, _NAMES) as folder:
      _fill(folder, 'new')
  assert _content(tmp_path) == dict.fromkeys(_NAMES, 'old')


@pytest.mark.parametrize('before', ['nothing', 'result'])
@pytest.mark.parametrize(
  'writer',
  [lambda target: files.filling_folder(target, _NAMES), files.replacing_directory],
)
def test_what_has_arrived_is_written_though_the_disk_does_not_confirm_names(
  tmp_path, monkeypatch, caplog, before, writer
):
  target = tmp_path / 'out'
  if before == 'result':
    target.mkdir()
    _fill(target, 'old')
  fsync, arrived = os.fsync, []

  def failing(descriptor):
    if arrived:
      raise OSError(errno.EIO, 'Input/output error')
    fsync(descriptor)

  rename = os.rename

  def moved(source, to):
    rename(source, to)
    if os.fspath(to) in (str(target), str(target / 'result')):
      arrived.append(to)

  monkeypatch.setattr(os, 'rename', moved)
  monkeypatch.setattr(os, 'fsync', failing)
  with writer(target) as folder:
    _fill(folder, 'new')
  assert arrived and _content(target) == dict.fromkeys(_NAMES, 'new')
  assert 'did not confirm' in caplog.text


@pytest.mark.parametrize('before', ['nothing', 'folder'])
def test_a_full_disk_is_told_of_the_place_asked_for(tmp_path, before):
  target = tmp_path / 'out'
  if before == 'folder':
    target.mkdir()
  with pytest.raises(errors.OutputError, match='no space left') as caught:
    with files.filling_folder(target, _NAMES) as folder:
      with files.replacing(folder / 'mask') as temporary:
        temporary.write_text('half')
        raise OSError(errno.ENOSPC, 'no space')
  assert str(caught.value).startswith(f'{target / "mask"}: ')
  assert os.listdir(tmp_path) == (['out'] if before == 'folder' else [])


def test_a_file_in_the_way_is_refused_before_any_work(tmp_path):
  (tmp_path / 'out').write_text('a file')
  with pytest.raises(errors.OutputError, match='a file stands where a folder'):
    with files.filling_folder(tmp_path / 'out', _NAMES):
      pytest.fail('must not get here')


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
  tmp_path, monkeypatch
):
  def denied(self, *_, **__):
    raise PermissionError(errno.EACCES, 'denied', str(self))

  monkeypatch.setattr('pathlib.Path.mkdir', denied)
  with pytest.raises(errors.OutputError, match='permission denied') as caught:
    with files.filling_folder(tmp_path, _NAMES):
      pytest.fail('must not get here')
  assert str(tmp_path) in str(caught.value)


def test_a_folder_below_one_that_nobody_may_enter(tmp_path, monkeypatch):
  def denied(path, *_, **__):
    raise PermissionError(errno.EACCES, 'denied', str(path))

  for name in ('stat', 'mkdir'):
    monkeypatch.setattr(os, name, denied)
  with pytest.raises(errors.OutputError, match='permission denied'):
    with files.filling_folder(tmp_path / 'private' / 'out', _NAMES):
      pytest.fail('must not get here')


def test_a_place_that_takes_no_folders(monkeypatch, tmp_path):
  def failing(path, *_, **__):  # As /proc does.
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

  monkeypatch.setattr(os, 'mkdir', failing)
  with pytest.raises(errors.OutputError, match='No such file or directory; choose'):
    with files.filling_folder(tmp_path / 'out', _NAMES):
      pytest.fail('must not get here')


def _tree(folder):
  return sorted(
    str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()
  )


def test_files_in_folders_appear_and_replace_those_of_their_names(tmp_path):
  _fill(tmp_path, 'old')
  (tmp_path / 'dicom').mkdir()
  for name in ('image.dcm', 'picture_1.dcm', 'slice.dcm'):
    (tmp_path / 'dicom' / name).write_text('old')
  with files.filling_folder(tmp_path, _NAMES, ('dicom/picture_*.dcm',)) as folder:
    _fill(folder, 'new')
    (folder / 'dicom').mkdir()
    (folder / 'dicom' / 'image.dcm').write_text('new')
  assert _tree(tmp_path) == sorted((*_NAMES, 'dicom/image.dcm', 'dicom/slice.dcm'))
  assert (tmp_path / 'dicom' / 'image.dcm').read_text() == 'new'
  assert (tmp_path / 'dicom' / 'slice.dcm').read_text() == 'old'


def test_a_folder_that_is_emptied_goes_away(tmp_path):
  (tmp_path / 'dicom').mkdir()
  (tmp_path / 'dicom' / 'image.dcm').write_text('old')
  with files.filling_folder(tmp_path, _NAMES, ('dicom/*.dcm',)) as folder:
    _fill(folder, 'new')
  assert sorted(os.listdir(tmp_path)) == sorted(_NAMES)


def test_files_in_folders_come_back_when_another_does_not_arrive(tmp_path, monkeypatch):
  _fill(tmp_path, 'old')
  (tmp_path / 'dicom').mkdir()
  (tmp_path / 'dicom' / 'image.dcm').write_text('old')
  _lose_result(tmp_path, monkeypatch)
  with pytest.raises(errors.OutputError):
    with files.filling_folder(tmp_path, _NAMES, ('dicom/*.dcm',)) as folder:
      _fill(folder, 'new')
      (folder / 'dicom').mkdir()
      (folder / 'dicom' / 'other.dcm').write_text('new')
  assert _tree(tmp_path) == sorted((*_NAMES, 'dicom/image.dcm'))
  assert (tmp_path / 'dicom' / 'image.dcm').read_text() == 'old'

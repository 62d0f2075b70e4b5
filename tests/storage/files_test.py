import errno
import json
import os
import stat

from pydicom import tag
import pytest

from covid_tf import errors
from covid_tf.storage import files


def _names(folder):
  return sorted(os.listdir(folder))


def test_write_atomically_makes_folders_and_replaces(tmp_path):
  path = tmp_path / 'a' / 'b' / 'result.json'
  files.write_atomically(path, b'one')
  files.write_atomically(path, b'two')
  assert path.read_bytes() == b'two'
  assert _names(path.parent) == ['result.json']


def test_a_file_is_readable_as_the_umask_says(tmp_path):
  old = os.umask(0o022)
  try:
    files.write_atomically(tmp_path / 'x', b'')
  finally:
    os.umask(old)
  assert stat.S_IMODE((tmp_path / 'x').stat().st_mode) == 0o644


@pytest.mark.parametrize('failure', [RuntimeError, KeyboardInterrupt])
def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path, failure):
  path = tmp_path / 'map.nii.gz'
  path.write_bytes(b'old')
  with pytest.raises(failure):
    with files.replacing(path) as temporary:
      assert temporary.parent == tmp_path and temporary.name.endswith('map.nii.gz')
      temporary.write_bytes(b'half')
      raise failure()
  assert path.read_bytes() == b'old'
  assert _names(tmp_path) == ['map.nii.gz']


def test_replacing_writes_through_a_link(tmp_path):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'link').symlink_to(tmp_path / 'real' / 'x')
  files.write_atomically(tmp_path / 'link', b'data')
  assert (tmp_path / 'real' / 'x').read_bytes() == b'data'
  assert (tmp_path / 'link').is_symlink()


@pytest.mark.parametrize('before', ['nothing', 'empty', 'full'])
def test_replacing_directory_swaps_the_whole_folder(tmp_path, before):
  target = tmp_path / 'model'
  if before != 'nothing':
    target.mkdir()
  if before == 'full':
    (target / 'stale').write_text('old')
  with files.replacing_directory(target) as temporary:
    (temporary / 'variables').mkdir()
    (temporary / 'variables' / 'data').write_text('new')
  assert _names(tmp_path) == ['model']
  assert _names(target) == ['variables']


def test_replacing_directory_leaves_the_old_folder_when_the_block_fails(tmp_path):
  target = tmp_path / 'model'
  target.mkdir()
  (target / 'kept').write_text('old')
  with pytest.raises(RuntimeError):
    with files.replacing_directory(target) as temporary:
      (temporary / 'half').write_text('new')
      raise RuntimeError
  assert _names(tmp_path) == ['model']
  assert _names(target) == ['kept']


def test_replacing_directory_refuses_a_file_in_the_way(tmp_path):
  (tmp_path / 'x').write_text('a file')
  with pytest.raises(errors.OutputError, match='a file stands where a folder'):
    with files.replacing_directory(tmp_path / 'x'):
      pytest.fail('must not get here')
  assert (tmp_path / 'x').read_text() == 'a file'


@pytest.mark.parametrize(
  'number, words',
  [
    (errno.ENOSPC, 'no space left'),
    (errno.EROFS, 'read-only'),
    (errno.EACCES, 'permission denied'),
  ],
)
def test_what_the_disk_refuses_names_path_and_reason(tmp_path, number, words):
  path = tmp_path / 'result.json'
  with pytest.raises(errors.OutputError, match=words) as caught:
    with files.replacing(path) as temporary:
      temporary.write_bytes(b'half')
      raise OSError(number, os.strerror(number))
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)
  assert _names(tmp_path) == []


def test_a_file_where_a_folder_is_needed_is_an_output_error(tmp_path):
  (tmp_path / 'x').write_text('a file')
  with pytest.raises(errors.OutputError):
    files.write_atomically(tmp_path / 'x' / 'result.json', b'')


def test_an_unreadable_input_is_not_called_an_output(tmp_path):
  with pytest.raises(PermissionError):
    with files.replacing(tmp_path / 'x'):
      raise PermissionError(errno.EACCES, 'denied', '/elsewhere/input.dcm')


def test_a_folder_that_holds_files_is_in_use(tmp_path):
  (tmp_path / 'empty').mkdir()
  files.require_unused(tmp_path / 'empty')
  files.require_unused(tmp_path / 'absent')
  with pytest.raises(errors.UsageError, match='found files in it'):
    files.require_unused(tmp_path)


def test_json_is_strict_and_holds_any_file_name(tmp_path):
  content = {'path': 'caf\udce9/série', 'values': [0.5, None]}
  files.write_json(tmp_path / 'a.json', content)
  data = (tmp_path / 'a.json').read_bytes()
  assert json.loads(data) == content
  assert 'série'.encode() in data and data.endswith(b'\n')
  with pytest.raises(ValueError, match='JSON'):
    files.write_json(tmp_path / 'b.json', {'value': float('nan')})
  assert not (tmp_path / 'b.json').exists()


def test_a_full_disk_that_pydicom_reports_is_one_in_words(tmp_path):
  full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  with pytest.raises(errors.OutputError, match='out: cannot be written') as caught:
    with files.filling_folder(tmp_path / 'out', ('a.dcm',)):
      with tag.tag_in_exception(tag.Tag(0x7FE00010)):
        raise full
  assert 'Traceback' not in str(caught.value)
  assert not (tmp_path / 'out').exists()

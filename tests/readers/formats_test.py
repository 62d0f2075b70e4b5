"""What files are: no slice is missed because something else stands in its place."""

import bz2
import gzip
import lzma
import re
import zipfile

import nibabel
import numpy as np
import odd_series
import pytest

from covid_tf import errors
from covid_tf import readers

_LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n'
_APPLE_DOUBLE = b'\0\5\x16\7\0\2\0\0Mac OS X        ' + bytes(300)


def _refusal(path) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(path)
  return str(caught.value)


def _without_the_last(folder, name, content):
  """A series whose last file was replaced, as a stack that is cut at its end."""
  odd_series.save(odd_series.series(), folder)
  last = folder / '0007.dcm'
  whole = last.read_bytes()
  last.unlink()
  (folder / name).write_bytes(content(whole))
  return folder


@pytest.mark.parametrize(
  'name, content, words',
  (
    ('0007.dcm', lambda whole: bytes(len(whole)), 'it holds zeros; copy the study'),
    ('IM0007', lambda whole: bytes(len(whole)), 'it holds zeros'),
    ('1.2.840.7', lambda whole: bytes(1000), 'it holds zeros'),
    ('0007.dcm', lambda whole: _LFS, r'Git LFS .*\(git lfs pull'),
    ('IM0007', lambda whole: _LFS, 'Git LFS'),
    ('0007.dcm.gz', gzip.compress, 'packed by gzip; unpack the files'),
    ('0007', gzip.compress, 'packed by gzip'),
    ('0007.dcm.bz2', bz2.compress, 'packed by bzip2'),
    ('0007.dcm.xz', lzma.compress, 'packed by xz'),
    ('.0007.dcm.icloud', lambda whole: b'bplist00', 'iCloud .* download the files'),
  ),
)
def test_what_stands_in_the_place_of_a_slice(tmp_path, name, content, words):
  text = _refusal(_without_the_last(tmp_path, name, content))
  assert text.startswith(f'{tmp_path.name}: 1 DICOM file(s) are no complete image')
  _matches(text, f'{name}: .*{words}')
  archive = tmp_path.with_suffix('.zip')
  with zipfile.ZipFile(archive, 'w') as target:
    for file in tmp_path.iterdir():
      target.write(file, f'study/{file.name}')
  _matches(_refusal(archive), f'{name}: .*{words}')


def _matches(text, pattern):
  assert re.search(pattern, text), text


@pytest.mark.parametrize(
  'name, content',
  (
    ('seg.nii.gz', _LFS),
    ('README.md', _LFS),
    ('voxels.raw', bytes(4000)),
    ('.hidden', bytes(4000)),
    ('notes.txt.gz', gzip.compress(b'notes')),
    ('logs', gzip.compress(b'x' * 1000)),
    ('.notes.txt.icloud', b'bplist00'),
    ('._0001.dcm', _APPLE_DOUBLE),
    ('._ct.nii.gz', _APPLE_DOUBLE),
  ),
)
def test_what_was_no_slice_is_left_aside(tmp_path, name, content):
  odd_series.save(odd_series.series(), tmp_path)
  (tmp_path / name).write_bytes(content)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  assert volume.warnings == ()


@pytest.mark.parametrize('content', (b'<!DOCTYPE html>Log in', b'quota exceeded'))
def test_files_that_are_called_dicom_and_are_none_are_counted(tmp_path, content):
  odd_series.save(odd_series.series(), tmp_path)
  (tmp_path / '0008.dcm').write_bytes(content)
  assert readers.read_ct(tmp_path).warnings == (
    '1 file(s) are called as DICOM is and are none, the first one 0008.dcm: skipped',
  )


@pytest.mark.parametrize('name', ('ct.nii.gz', 'ct.mha', 'ct.nrrd'))
@pytest.mark.parametrize(
  'content, words',
  (
    (b'', 'it is empty; copy it again'),
    (bytes(5000), 'it holds zeros; copy it again'),
    (_LFS, 'Git LFS stands in its place; fetch the files'),
    (b'\n<html>Log in</html>', 'a web page or XML'),
    (b'PK\3\4' + bytes(300), 'it is a zip; call it .zip'),
    (gzip.compress(gzip.compress(b'x' * 500)), 'packed by gzip twice; unpack it once'),
    (bz2.compress(b'x' * 500), 'packed by bzip2; unpack it'),
    (lzma.compress(b'x' * 500), 'packed by xz; unpack it'),
  ),
)
def test_what_is_called_a_volume_and_is_none(tmp_path, capfd, name, content, words):
  path = tmp_path / name
  path.write_bytes(content)
  text = _refusal(path)
  assert text.startswith(f'{name}: it is no ') and words in text
  assert capfd.readouterr().err == ''


@pytest.mark.parametrize('name', ('ct.nii.bz2', 'study.xz', 'study.zst'))
def test_packed_files_are_named(tmp_path, name):
  content = {'bz2': bz2.compress, 'xz': lzma.compress}.get(name.rsplit('.', 1)[1])
  (tmp_path / name).write_bytes(content(b'x') if content else b'(\xb5/\xfd' + bytes(9))
  _matches(
    _refusal(tmp_path / name), r'packed by (bzip2|xz|zstd), .*; unpack the files'
  )


def test_what_macos_puts_beside_a_volume_is_no_volume(tmp_path):
  affine = np.diag((-0.75, -0.75, 2.5, 1))
  hu = odd_series.chest_hu()
  image = nibabel.Nifti1Image(np.ascontiguousarray(hu.T), affine)
  nibabel.save(image, tmp_path / 'ct.nii.gz')
  (tmp_path / '._ct.nii.gz').write_bytes(_APPLE_DOUBLE)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, hu)
  archive = tmp_path / 'ct.zip'
  with zipfile.ZipFile(archive, 'w') as target:
    target.write(tmp_path / 'ct.nii.gz', 'ct.nii.gz')
    target.writestr('__MACOSX/._ct.nii.gz', _APPLE_DOUBLE)
  np.testing.assert_array_equal(readers.read_ct(archive).hu, hu)

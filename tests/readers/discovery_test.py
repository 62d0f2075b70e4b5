"""Finding the files of a study, with other things among them."""

import os
import pathlib
import zipfile

import numpy as np
import odd_series
import pydicom
from pydicom import fileset
import pytest

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import stack_volume


def _refusal(path) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(path)
  return str(caught.value)


def _assert_read(path):
  volume = readers.read_ct(path)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  return volume


def test_nested_folders_with_junk(tmp_path):
  slices = odd_series.series()
  odd_series.save(slices[:3], tmp_path / 'a' / 'b')
  odd_series.save(slices[3:], tmp_path / 'c')
  (tmp_path / 'readme.txt').write_text('not DICOM')
  (tmp_path / 'a' / 'Thumbs.db').write_bytes(bytes(range(256)) * 20)
  (tmp_path / 'c' / '._0001.dcm').write_bytes(b'\0\5\x16\7' + b'Mac OS X' * 50)
  (tmp_path / 'page.html').write_text('<html>' * 100)
  assert _assert_read(tmp_path).warnings == ()


def test_empty_files_are_skipped_with_a_warning(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  (tmp_path / 'empty.dcm').touch()
  assert _assert_read(tmp_path).warnings == ('1 empty file(s) skipped',)


def _linked(study, store, indices=range(8)):
  """Moves slices to a store and leaves links to them."""
  store.mkdir(parents=True, exist_ok=True)
  for index in indices:
    path = study / f'{index:04d}.dcm'
    path.rename(store / f'key-{index}')
    path.symlink_to(os.path.relpath(store / f'key-{index}', study))


@pytest.mark.parametrize('indices', (range(8), (0, 3, 7)), ids=('all', 'some'))
@pytest.mark.parametrize(
  'store', ('outside', 'study/.git/annex/objects/a/b', 'study/inside')
)
def test_links_to_files_are_followed_once(tmp_path, indices, store):
  study = odd_series.save(odd_series.series(), tmp_path / 'study')
  _linked(study, tmp_path / store, indices)
  (study / 'twice.dcm').symlink_to('0003.dcm')
  assert _assert_read(study).warnings == ()


def test_old_versions_in_an_annex_are_no_slices(tmp_path):
  study = odd_series.save(odd_series.series(), tmp_path / 'study')
  _linked(study, study / '.git' / 'annex')
  old = odd_series.series(odd_series.chest_hu(seed=9))
  odd_series.save(old, study / '.git' / 'old')
  assert _assert_read(study).warnings == ()


def test_files_as_kubernetes_mounts_them(tmp_path):
  odd_series.save(odd_series.series(), tmp_path / 'study' / '..2026_01')
  (tmp_path / 'study' / '..data').symlink_to('..2026_01')
  for index in range(8):
    (tmp_path / 'study' / f'{index:04d}.dcm').symlink_to(f'..data/{index:04d}.dcm')
  _assert_read(tmp_path / 'study')


def test_links_to_folders_are_not_followed(tmp_path):
  study, outside = tmp_path / 'study', tmp_path / 'outside'
  odd_series.save(odd_series.series(), study)
  other = odd_series.series(series_uid='1.2.3', study_uid='1.2.4')
  odd_series.save(other, outside)
  (study / 'loop').symlink_to(study)
  (study / 'out').symlink_to(outside)
  assert _assert_read(study).warnings == (
    '2 symbolic link(s) to folders were not followed',
  )


@pytest.mark.parametrize(
  'name, target',
  (
    ('0008.dcm', '../nothing'),
    ('IM8', '.git/annex/objects/x'),
    ('1.2.3.4', '1.2.3.4'),
    ('0008.dcm', '0009.dcm'),
  ),
)
def test_a_link_that_leads_nowhere_is_a_missing_slice(tmp_path, name, target):
  odd_series.save(odd_series.series(), tmp_path)
  (tmp_path / name).symlink_to(target)
  text = _refusal(tmp_path)
  assert '1 symbolic link(s) lead to no file' in text and name in text
  assert 'git annex get' in text
  with pytest.raises(errors.CTReadError, match='lead to no file'):
    readers.read_files(list(tmp_path.iterdir()), name='x')


@pytest.mark.parametrize('name', ('notes.txt', '.#0001.dcm', 'README.md', 'seg.nii.gz'))
def test_a_link_that_was_no_slice_may_lead_nowhere(tmp_path, name):
  odd_series.save(odd_series.series(), tmp_path)
  (tmp_path / name).symlink_to('../nothing')
  _assert_read(tmp_path)
  volume = readers.read_files(list(tmp_path.iterdir()), name='x')
  assert volume.shape == odd_series.SHAPE


def test_a_link_to_a_fifo_is_not_opened(tmp_path):
  odd_series.save(odd_series.series(), tmp_path / 'study')
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'study' / 'pipe.dcm').symlink_to(tmp_path / 'pipe')
  _assert_read(tmp_path / 'study')


def test_a_dicomdir_lists_links_too(tmp_path):
  disc = _disc(tmp_path)
  first = min(
    path for path in disc.rglob('*') if path.is_file() and path.name != 'DICOMDIR'
  )
  first.rename(tmp_path / 'key')
  first.symlink_to(tmp_path / 'key')
  _assert_read(disc / 'DICOMDIR')
  (tmp_path / 'key').unlink()
  assert '1 of them are not there' in _refusal(disc / 'DICOMDIR')


def test_a_fifo_is_not_opened(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  os.mkfifo(tmp_path / 'pipe.dcm')
  _assert_read(tmp_path)  # Opening it would wait for ever.
  assert 'pipe' in _refusal(tmp_path / 'pipe.dcm')


@pytest.mark.parametrize('content', (None, 'folder', 'text'))
def test_nothing_to_read(tmp_path, content):
  path = tmp_path / 'study'
  if content == 'folder':
    path.mkdir()
  elif content == 'text':
    path.mkdir()
    (path / 'notes.txt').write_text('no CT here')
  text = _refusal(path)
  assert ('no such file' if content is None else 'no CT images among') in text


def test_a_zip_is_read_like_its_folder(tmp_path):
  folder = odd_series.save(odd_series.series(), tmp_path / 'x' / 'y')
  archive = tmp_path / 'study.zip'
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as target:
    target.writestr('readme.txt', 'junk')
    for path in folder.iterdir():
      target.write(path, f'dicom/{path.name}')
  _assert_read(archive)


@pytest.mark.parametrize('place', (0.02, 0.5, 0.97))
def test_a_damaged_zip_is_refused(tmp_path, place):
  folder = odd_series.save(odd_series.series(), tmp_path / 'x')
  archive = tmp_path / 'study.zip'
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as target:
    for path in folder.iterdir():
      target.write(path, path.name)
  data = bytearray(archive.read_bytes())
  start = int(len(data) * place)
  data[start : start + 60] = bytes(60)
  archive.write_bytes(data)
  _refusal(archive)


def test_a_zip_inside_a_zip_is_reported(tmp_path):
  folder = odd_series.save(odd_series.series(), tmp_path / 'x')
  archive = tmp_path / 'study.zip'
  with zipfile.ZipFile(archive, 'w') as target:
    target.writestr('rest.zip', 'more slices?')
    for path in folder.iterdir():
      target.write(path, path.name)
  volume = readers.read_ct(archive)
  assert volume.warnings == ('1 zip file(s) inside the zip were not opened',)


def test_a_zip_that_is_cut_off_is_called_damaged(tmp_path):
  folder = odd_series.save(odd_series.series(), tmp_path / 'x')
  archive = tmp_path / 'study.zip'
  with zipfile.ZipFile(archive, 'w') as target:
    for path in folder.iterdir():
      target.write(path, path.name)
  archive.write_bytes(archive.read_bytes()[:-500])
  assert 'the zip is damaged' in _refusal(archive)


def test_a_changed_pixel_in_a_zip_is_found_by_the_checksum(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.add_new(0xFFFCFFFC, 'OB', bytes(9000))  # More than zipfile reads ahead.
  folder = odd_series.save(slices, tmp_path / 'x')
  archive = tmp_path / 'study.zip'
  with zipfile.ZipFile(archive, 'w') as target:
    for path in folder.iterdir():
      target.write(path, path.name)
  data = bytearray(archive.read_bytes())
  data[data.index(slices[3].PixelData) + 1000] ^= 1
  archive.write_bytes(data)
  assert 'the zip is damaged' in _refusal(archive)


def test_a_zip_with_a_password_is_refused(tmp_path):
  archive = tmp_path / 'study.zip'
  with zipfile.ZipFile(archive, 'w') as target:
    target.writestr('a.dcm', bytes(300))
  data = bytearray(archive.read_bytes())
  for signature, offset in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
    data[data.index(signature) + offset] |= 1
  archive.write_bytes(data)
  assert 'password' in _refusal(archive)


def _disc(tmp_path) -> pathlib.Path:
  folder = odd_series.save(odd_series.series(), tmp_path / 'source')
  disc = fileset.FileSet()
  for path in sorted(folder.iterdir()):
    ds = pydicom.dcmread(path)
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.SeriesNumber = (
      '20200315',
      '101500',
      '1',
      2,
    )
    disc.add(ds)
  disc.write(tmp_path / 'disc')
  return tmp_path / 'disc'


def test_a_dicomdir_is_read(tmp_path):
  disc = _disc(tmp_path)
  _assert_read(disc / 'DICOMDIR')
  _assert_read(disc)


def test_a_dicomdir_whose_files_are_missing(tmp_path):
  disc = _disc(tmp_path)
  next(
    path for path in disc.rglob('*') if path.is_file() and path.name != 'DICOMDIR'
  ).unlink()
  assert 'lists 8 files and 1 of them are not there' in _refusal(disc / 'DICOMDIR')


def test_a_dicomdir_that_points_outside(tmp_path):
  disc = _disc(tmp_path)
  directory = pydicom.dcmread(disc / 'DICOMDIR')
  for record in directory.DirectoryRecordSequence:
    if 'ReferencedFileID' in record:
      record.ReferencedFileID = ['..', 'X']
  directory.save_as(disc / 'DICOMDIR')
  assert 'outside' in _refusal(disc / 'DICOMDIR')


def test_a_single_file_of_a_series_is_a_single_slice(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  assert 'spacing cannot be measured' in _refusal(tmp_path / '0000.dcm')


@pytest.mark.parametrize('left', (60, 131, 140, 200, 400, 700, 1000))
@pytest.mark.parametrize('index', (3, 7))
def test_a_file_cut_at_any_byte_is_refused(tmp_path, left, index):
  """At the end of the stack no gap would show that a slice is missing."""
  odd_series.save(odd_series.series(), tmp_path)
  path = tmp_path / f'{index:04d}.dcm'
  path.write_bytes(path.read_bytes()[:left])
  assert path.name in _refusal(tmp_path) or 'truncated' in _refusal(tmp_path)


def test_a_file_that_cannot_be_read_any_more(tmp_path, monkeypatch):
  odd_series.save(odd_series.series(), tmp_path)
  load = stack_volume.load_voxels

  def remove_and_load(stack):
    (tmp_path / '0004.dcm').unlink()
    return load(stack)

  monkeypatch.setattr(stack_volume, 'load_voxels', remove_and_load)
  assert '0004.dcm' in _refusal(tmp_path)


_META_IMAGE = b'ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\n'


@pytest.mark.parametrize(
  'name, content, message',
  (
    ('ct.raw', b'', 'voxels without their header, which this version does not read'),
    ('ct.png', b'\x89PNG\r\n', 'PNG pictures'),
    ('ct.tar.gz', b'\x1f\x8b', 'tar'),
    ('ct.npy', b'\x93NUMPY\x01', 'NumPy'),
  ),
)
@pytest.mark.parametrize('place', ('file', 'folder', 'zip'))
def test_another_format_is_named(tmp_path, name, content, message, place):
  path = tmp_path / 'x' / name
  path.parent.mkdir()
  path.write_bytes(content.ljust(600, b'\0'))
  if place == 'zip':
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as target:
      target.write(path, name)
  places = {'file': path, 'folder': path.parent, 'zip': tmp_path / 'x.zip'}
  text = _refusal(places[place])
  assert message in text and 'no CT images' not in text
  assert 'give' in text


@pytest.mark.parametrize(
  'name, content',
  (('ct.nii', b''), ('ct.nii.gz', b'\x1f\x8b'), ('a/ct.nii', b'x' * 400)),
)
def test_a_damaged_nifti_in_a_zip(tmp_path, name, content):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as target:
    target.writestr(name, content)
  assert 'no readable NIfTI' in _refusal(tmp_path / 'x.zip')


def test_a_picture_beside_a_study_says_nothing(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  (tmp_path / 'ct.mha').write_bytes(_META_IMAGE)
  assert _assert_read(tmp_path).warnings == ()

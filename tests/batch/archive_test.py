import csv
import gzip
import os
import pathlib
import shutil

import nibabel
import numpy as np
import odd_series
import pydicom
from pydicom import fileset
import pytest
import SimpleITK as sitk

from covid_tf import errors
from covid_tf import readers
from covid_tf.batch import archive
from covid_tf.batch import listing as listing_lib
from covid_tf.readers import header

_ROOT = '1.2.826.0.1.3680043.10.511'


def _write(folder, number, *, slices=3, prefix='', seed=None):
  """A study of random tissue; the seed makes other pixels of the same images."""
  hu = odd_series.chest_hu((slices, 8, 8), seed=number if seed is None else seed)
  return odd_series.save(
    odd_series.series(
      hu, study_uid=f'{_ROOT}.2.{number}', series_uid=f'{_ROOT}.3.{number}'
    ),
    folder,
    prefix=prefix,
  )


def _keys(found: listing_lib.Archive):
  return [study.key for study in found.studies]


def _files(study):
  return sorted(
    os.path.basename(path) for place in study.places for path in place.files()
  )


def test_folders_and_files_become_studies_by_their_uids(tmp_path):
  _write(tmp_path / 'one', 1)
  _write(tmp_path / 'mixed', 2, prefix='a')
  _write(tmp_path / 'mixed', 3, prefix='b')
  (tmp_path / 'mixed' / 'notes.txt').write_text('no image')
  found = archive.find_studies(tmp_path)
  assert _keys(found) == [f'{_ROOT}.2.{number}' for number in (1, 2, 3)]
  assert _files(found.studies[1]) == ['a0000.dcm', 'a0001.dcm', 'a0002.dcm']
  assert _files(found.studies[2]) == ['b0000.dcm', 'b0001.dcm', 'b0002.dcm']
  assert found.studies[0].series_uids == (f'{_ROOT}.3.1',)
  assert found.problems == () and found.notes == ()


def test_a_study_over_two_folders_is_one(tmp_path):
  _write(tmp_path / 'a', 1, slices=4)
  (tmp_path / 'b').mkdir()
  shutil.move(tmp_path / 'a' / '0003.dcm', tmp_path / 'b' / '0003.dcm')
  (study,) = archive.find_studies(tmp_path).studies
  assert study.refusal is None and study.copies == () and study.warnings == ()
  assert _files(study) == ['0000.dcm', '0001.dcm', '0002.dcm', '0003.dcm']


def test_an_equal_copy_is_read_once_with_a_warning(tmp_path):
  _write(tmp_path / 'a', 1)
  shutil.copytree(tmp_path / 'a', tmp_path / 'backup' / 'a')
  (study,) = archive.find_studies(tmp_path).studies
  assert [place.folder for place in study.places] == [str(tmp_path / 'a')]
  assert [place.folder for place in study.copies] == [str(tmp_path / 'backup' / 'a')]
  assert study.refusal is None and 'second place' in study.warnings[0]


def test_a_copy_that_lacks_a_slice_is_refused(tmp_path):
  _write(tmp_path / 'a', 1)
  shutil.copytree(tmp_path / 'a', tmp_path / 'b')
  (tmp_path / 'b' / '0001.dcm').unlink()
  (study,) = archive.find_studies(tmp_path).studies
  assert 'differing copies' in study.refusal
  assert '3 and 2 images' in study.refusal and str(tmp_path) not in study.refusal


def test_a_link_loop_ends_and_an_unreadable_folder_is_named(tmp_path, monkeypatch):
  _write(tmp_path / 'a', 1)
  (tmp_path / 'a' / 'loop').symlink_to(tmp_path)
  (tmp_path / 'closed').mkdir()
  scandir = os.scandir

  def refusing(path):  # Root may read everything.
    if str(path).endswith('closed'):
      raise PermissionError(13, 'Permission denied')
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refusing)
  found = archive.find_studies(tmp_path)
  assert _keys(found) == [f'{_ROOT}.2.1']
  (problem,) = found.problems
  assert 'closed' in problem and 'Permission denied' in problem
  assert '1 symbolic link' in found.notes[0]


def test_other_modalities_are_no_studies(tmp_path):
  _write(tmp_path / 'a', 1)
  for path in _write(tmp_path / 'pet', 2).iterdir():
    data_set = pydicom.dcmread(path)
    data_set.Modality = 'PT'
    data_set.SOPClassUID = pydicom.uid.PositronEmissionTomographyImageStorage
    data_set.save_as(path)
  assert _keys(archive.find_studies(tmp_path)) == [f'{_ROOT}.2.1']


def test_a_damaged_slice_stays_with_its_study(tmp_path):
  _write(tmp_path / 'mixed', 1, prefix='a')
  _write(tmp_path / 'mixed', 2, prefix='b')
  path = tmp_path / 'mixed' / 'a0001.dcm'
  path.write_bytes(path.read_bytes()[:400])
  first = archive.find_studies(tmp_path).studies[0]
  assert 'a0001.dcm' in _files(first)


def test_a_text_list_and_its_missing_entries(tmp_path):
  _write(tmp_path / 'in' / 'a', 1)
  _write(tmp_path / 'in' / 'b', 2)
  listing = tmp_path / 'list.txt'
  listing.write_text('in/b\n\nin/a\nin/gone\n')
  found = archive.find_studies(listing)
  assert _keys(found) == [f'{_ROOT}.2.1', f'{_ROOT}.2.2']
  (problem,) = found.problems
  assert 'gone' in problem


def test_a_csv_chooses_series_and_a_wrong_one_is_refused(tmp_path):
  _write(tmp_path / 'a', 1)
  _write(tmp_path / 'b', 2)
  table = tmp_path / 'list.csv'
  with open(table, 'w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows(
      [['path', 'series_uid'], ['a', f'{_ROOT}.3.1'], ['b', f'{_ROOT}.3.77']]
    )
  first, second = archive.find_studies(table).studies
  assert first.series_uid == f'{_ROOT}.3.1' and first.refusal is None
  assert first.key == f'{_ROOT}.2.1_{_ROOT}.3.1'
  assert 'not among' in second.refusal


@pytest.mark.parametrize(
  'name, encoding',
  [
    ('list.csv', 'utf-8'),
    ('list.CSV', 'utf-8-sig'),
    ('list.txt', 'utf-16'),
    ('list.tsv', 'utf-16'),
  ],
)
@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_a_table_may_come_from_any_spreadsheet(
  tmp_path, monkeypatch, name, encoding, separator
):
  monkeypatch.setenv('HOME', str(tmp_path))
  _write(tmp_path / 'a, x;y', 1)
  _write(tmp_path / 'b', 2)
  rows = (
    ('Path', 'Series UID', ''),
    ('"a, x;y"', f'{_ROOT}.3.1', ''),
    ('"""~/b"""', '', ''),
    ('', '', ''),
  )
  (tmp_path / name).write_bytes(
    ''.join(separator.join(row) + '\r\n' for row in rows).encode(encoding)
  )
  first, second = archive.find_studies(tmp_path / name).studies
  assert first.series_uid == f'{_ROOT}.3.1' and first.refusal is None
  assert _files(second) == ['0000.dcm', '0001.dcm', '0002.dcm']


def test_rows_of_a_table_may_end_before_the_series(tmp_path):
  _write(tmp_path / 'a', 1)
  (tmp_path / 'list.csv').write_text('path,series_uid\n\na\n')
  assert _keys(archive.find_studies(tmp_path / 'list.csv')) == [f'{_ROOT}.2.1']


def test_a_text_list_has_paths_in_quotes_and_from_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  _write(tmp_path / 'home' / 'b', 2)
  _write(tmp_path / 'path', 1)
  listing = tmp_path / 'list.txt'
  listing.write_bytes("path\r\n'~/b'\r\n".encode('utf-16'))
  assert _keys(archive.find_studies(listing)) == [f'{_ROOT}.2.1', f'{_ROOT}.2.2']


@pytest.mark.parametrize(
  'name, text, message',
  [
    ('gone.txt', None, 'found nothing'),
    ('empty.txt', '\n', 'empty'),
    ('list.csv', 'folder\na\n', 'column named path'),
    ('list.csv', 'path,series_uid\na,x1\n', 'line 2'),
    ('list.bin', '\udcff', 'UTF-8'),
    ('list.csv', 'path;series_uid\na;2,25E+38\n', 'line 2: .* the UID into a number'),
    ('list.csv', 'path\na, b\n', 'row 2: 1 cells are required'),
    ('list.csv', 'path\n', 'at least one row'),
    ('list.xlsx', 'PK\x05\x06' + '\0' * 18, 'a zip archive'),
    ('list.xls', '\udcd0\udccf\x11\udce0\udca1\udcb1\x1a\udce1', 'Excel workbook'),
  ],
)
def test_what_is_no_archive_is_refused(tmp_path, name, text, message):
  if text is not None:
    (tmp_path / name).write_bytes(text.encode('utf-8', 'surrogateescape'))
  with pytest.raises(errors.UsageError, match=message):
    archive.find_studies(tmp_path / name)


def test_nifti_and_zip_files_are_studies_without_their_names(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'SMITH.nii.gz').write_bytes(b'')
  (tmp_path / 'a' / 'SMITH.zip').write_bytes(b'')
  found = archive.find_studies(tmp_path).studies
  assert [study.key.split('-')[0] for study in found] == ['nifti', 'zip']
  assert 'SMITH' not in ' '.join(study.key for study in found)


def _nifti(path):
  image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
  path.write_bytes(image.to_bytes())


def test_files_are_known_by_their_content_whatever_their_name(tmp_path):
  """As for the reader; a damaged one by its name."""
  _write(tmp_path / 'dicom', 1)
  for old, new in (('0000.dcm', '0000.nii'), ('0001.dcm', '0001.ZIP')):
    (tmp_path / 'dicom' / old).rename(tmp_path / 'dicom' / new)
  _nifti(tmp_path / 'plain.dat')
  _nifti(tmp_path / 'plain')
  (tmp_path / 'packed.img').write_bytes(
    gzip.compress((tmp_path / 'plain').read_bytes())
  )
  (tmp_path / 'notes.gz').write_bytes(gzip.compress(b'notes' * 100))
  (tmp_path / 'damaged.nii').write_bytes(b'')
  found = archive.find_studies(tmp_path)
  assert {os.path.basename(study.path) for study in found.studies if study.path} == {
    'plain.dat',
    'plain',
    'packed.img',
    'damaged.nii',
  }
  (dicom,) = [study for study in found.studies if not study.path]
  assert _files(dicom) == ['0000.nii', '0001.ZIP', '0002.dcm']
  assert not found.problems


def _itk(path, packed=False):
  image = sitk.GetImageFromArray(odd_series.chest_hu((3, 8, 8)))
  path.parent.mkdir(parents=True, exist_ok=True)
  sitk.WriteImage(image, os.fspath(path), packed)
  return path


_KINDS = {'.mha': 'metaimage', '.mhd': 'metaimage', '.nrrd': 'nrrd', '.nhdr': 'nrrd'}


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('suffix', _KINDS)
def test_a_file_of_metaimage_or_nrrd_is_one_study(tmp_path, suffix, packed):
  """With the file of its voxels, which is none."""
  path = _itk(tmp_path / 'in' / f'SMITH{suffix}', packed)
  (tmp_path / 'list.txt').write_text(f'in/{path.name}\n')
  for source in (tmp_path / 'in', path, tmp_path / 'list.txt'):
    found = archive.find_studies(source)
    (study,) = found.studies
    assert study.path == os.fspath(path) and not found.problems + found.notes
    assert study.key.startswith(f'{_KINDS[suffix]}-') and 'SMITH' not in study.key


def test_metaimage_and_nrrd_are_known_by_their_content(tmp_path):
  _itk(tmp_path / 'a.mha').rename(tmp_path / 'a')
  _itk(tmp_path / 'b.nrrd').rename(tmp_path / 'b.nii')
  (tmp_path / 'notes.txt').write_text('Comment = no volume\n')
  kinds = [key.split('-')[0] for key in _keys(archive.find_studies(tmp_path))]
  assert kinds == ['metaimage', 'nrrd']


@pytest.mark.parametrize('suffix', ['.mhd', '.nhdr'])
def test_other_voxels_beside_a_header_are_another_study_to_score(tmp_path, suffix):
  path = _itk(tmp_path / f'a{suffix}')
  (first,) = archive.find_studies(tmp_path).studies
  voxels = path.with_suffix('.raw')
  voxels.write_bytes(voxels.read_bytes()[::-1])
  os.utime(voxels, ns=(1, 1))
  (again,) = archive.find_studies(tmp_path).studies
  assert again.key == first.key and again.fingerprint != first.fingerprint


def test_voxels_that_are_called_as_a_volume_belong_to_their_header(tmp_path):
  _itk(tmp_path / 'a.nhdr')
  (tmp_path / 'a.raw').rename(tmp_path / 'a.nrrd')
  header_path = tmp_path / 'a.nhdr'
  header_path.write_text(header_path.read_text().replace('a.raw', 'a.nrrd'))
  (study,) = archive.find_studies(tmp_path).studies
  assert study.path == os.fspath(header_path)


def test_segmentations_of_slicer_are_left_out_of_a_folder(tmp_path):
  _itk(tmp_path / 'a' / 'ct.nrrd')
  mask = _itk(tmp_path / 'a' / 'ct.seg.nrrd')
  index = tmp_path / 'index.jsonl'
  for _ in range(2):  # The second time from the index.
    found = archive.find_studies(tmp_path / 'a', index_path=index)
    assert [os.path.basename(study.path) for study in found.studies] == ['ct.nrrd']
    assert found.notes == ('1 segmentation(s) of 3D Slicer (.seg.nrrd) are no CT',)
  assert len(archive.find_studies(mask).studies) == 1


def test_an_index_of_before_these_formats_is_read_anew(tmp_path):
  path = _itk(tmp_path / 'in' / 'a.mha')
  changed = path.parent.stat().st_mtime_ns
  index = tmp_path / 'index.jsonl'
  index.write_text(f'2\n["{path.parent}", {changed}, [], [], []]\n')
  assert len(archive.find_studies(path.parent, index_path=index).studies) == 1


def test_a_nifti_of_any_name_is_an_archive_of_one_study(tmp_path):
  _nifti(tmp_path / 'chest')
  (tmp_path / 'list.txt').write_text('chest\n')
  (direct,) = archive.find_studies(tmp_path / 'chest').studies
  (listed,) = archive.find_studies(tmp_path / 'list.txt').studies
  assert direct.path == listed.path == str(tmp_path / 'chest')


@pytest.mark.parametrize('name', ['gone.nii.gz', 'gone.mhd', 'gone.nrrd'])
def test_a_link_to_a_volume_that_is_not_there_is_named(tmp_path, name):
  (tmp_path / name).symlink_to(tmp_path / 'nowhere')
  found = archive.find_studies(tmp_path)
  assert not found.studies and len(found.problems) == 1


def test_keys_stay_when_a_list_grows(tmp_path):
  (tmp_path / 'in' / 'deep').mkdir(parents=True)
  for name in ('in/deep/a.nii', 'in/b.nii'):
    (tmp_path / name).write_bytes(b'')
  (tmp_path / 'list.txt').write_text('in/deep/a.nii\n')
  (first,) = _keys(archive.find_studies(tmp_path / 'list.txt'))
  (tmp_path / 'list.txt').write_text('in/deep/a.nii\nin/b.nii\n')
  both = _keys(archive.find_studies(tmp_path / 'list.txt'))
  assert first in both and len(both) == 2


def test_a_relative_path_is_whole_for_workers_elsewhere(tmp_path, monkeypatch):
  _write(tmp_path / 'in' / 'a', 1)
  monkeypatch.chdir(tmp_path)
  (study,) = archive.find_studies('in').studies
  assert [place.folder for place in study.places] == [str(tmp_path / 'in' / 'a')]


def test_a_pipe_in_a_list_does_not_wait(tmp_path):
  _write(tmp_path / 'a', 1)
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'list.txt').write_text('a\npipe\n')
  found = archive.find_studies(tmp_path / 'list.txt')
  assert _keys(found) == [f'{_ROOT}.2.1']
  assert 'pipe' in found.problems[0]


def test_an_unreadable_place_is_said_in_words(tmp_path, monkeypatch):
  def refusing(path, **options):  # Root may look anywhere.
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(pathlib.Path, 'stat', refusing)
  with pytest.raises(errors.UsageError, match='Permission denied'):
    archive.find_studies(tmp_path / 'closed' / 'list.txt')


def test_a_second_listing_reads_only_what_is_new(tmp_path):
  _write(tmp_path / 'in' / 'a', 1)
  read = []

  def identify(path):
    read.append(path)
    return header.identify(path)

  def find():
    return archive.find_studies(
      tmp_path / 'in', index_path=tmp_path / 'index.jsonl', identify=identify
    )

  # A moment ago something came: perhaps more has, in the same one.
  assert find() == find() and len(read) == 6
  read.clear()
  os.utime(tmp_path / 'in' / 'a', (1, 1))
  first = find()
  assert len(read) == 3
  assert find() == first and len(read) == 3
  _write(tmp_path / 'in' / 'b', 2)
  assert _keys(find()) == [f'{_ROOT}.2.1', f'{_ROOT}.2.2']
  assert len(read) == 6
  (tmp_path / 'index.jsonl').write_text('{"torn')
  assert archive.load_index(tmp_path / 'index.jsonl') == {}


def test_a_dicomdir_lists_its_studies(tmp_path):
  disc = fileset.FileSet()
  for path in sorted(_write(tmp_path / 'in', 1).iterdir()):
    data_set = pydicom.dcmread(path)
    # What a DICOMDIR's records require beside what a CT has.
    data_set.StudyDate, data_set.StudyTime, data_set.StudyID = '20200301', '1200', '1'
    data_set.SeriesNumber = 1
    disc.add(data_set)
  disc.write(tmp_path / 'disc')
  (study,) = archive.find_studies(tmp_path / 'disc' / 'DICOMDIR').studies
  assert study.key == f'{_ROOT}.2.1' and len(_files(study)) == 3


def _links(root, store, names):
  """Moves the files of a folder to a store and leaves links."""
  store.mkdir(parents=True, exist_ok=True)
  for name in names:
    (root / name).rename(store / f'{root.name}-{name}')
    (root / name).symlink_to(store / f'{root.name}-{name}')


@pytest.mark.parametrize('store', ('outside', 'archive/.git/annex', 'archive/raw'))
def test_links_to_files_are_listed_once(tmp_path, store):
  folder = _write(tmp_path / 'archive' / 'a', 1)
  _links(folder, tmp_path / store, ['0000.dcm', '0001.dcm', '0002.dcm'])
  found = archive.find_studies(tmp_path / 'archive')
  (study,) = found.studies
  assert len(_files(study)) == 3 and study.refusal is None
  assert found.problems == () and study.warnings == ()


def test_a_link_that_leads_nowhere_refuses_its_study(tmp_path):
  folder = _write(tmp_path / 'archive' / 'a', 1)
  _links(folder, tmp_path / 'store', ['0002.dcm'])
  kept = tmp_path / 'index.jsonl'
  (tmp_path / 'store' / 'a-0002.dcm').rename(tmp_path / 'away')
  found = archive.find_studies(tmp_path / 'archive', index_path=kept)
  (problem,) = found.problems
  assert 'lead to no file' in problem and 'git annex get' in problem
  (study,) = found.studies
  with pytest.raises(errors.CTReadError, match='lead to no file'):
    readers.read_files(study.places[0].files(), name='x')
  # Fetching the file does not change the folder; it is seen all the same.
  (tmp_path / 'away').rename(tmp_path / 'store' / 'a-0002.dcm')
  again = archive.find_studies(tmp_path / 'archive', index_path=kept)
  assert again.problems == ()
  assert again.studies[0].fingerprint != study.fingerprint

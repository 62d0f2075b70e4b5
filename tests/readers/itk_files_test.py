"""MetaImage and NRRD: as SimpleITK writes them, and all that must be refused."""

import os
import subprocess
import sys
import zipfile

import nibabel
import numpy as np
import odd_series
import pytest
import SimpleITK as sitk

from covid_tf import errors
from covid_tf import readers
from covid_tf.storage import maps

_SUFFIXES = ('.mha', '.mhd', '.nrrd', '.nhdr')


def _image(hu=None, direction=None):
  image = sitk.GetImageFromArray(odd_series.chest_hu() if hu is None else hu)
  image.SetSpacing((0.75, 0.625, 2.5))
  image.SetOrigin((-10.0, -20.0, 30.0))
  if direction is not None:
    image.SetDirection(np.ravel(direction).tolist())
  return image


def _write(path, image=None, packed=False):
  sitk.WriteImage(_image() if image is None else image, str(path), packed)
  return path


def _refusal(path) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(path)
  return str(caught.value)


def _change(path, *pairs):
  data = path.read_bytes()
  for old, new in pairs:
    assert old in data
    data = data.replace(old, new)
  path.write_bytes(data)
  return path


@pytest.mark.parametrize('packed', (False, True), ids=('raw', 'packed'))
@pytest.mark.parametrize('suffix', _SUFFIXES)
def test_voxels_and_places(tmp_path, suffix, packed):
  volume = readers.read_ct(_write(tmp_path / f'ct{suffix}', packed=packed))
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  assert volume.spacing_mm == (2.5, 0.625, 0.75)
  np.testing.assert_array_equal(volume.index_to_lps_mm((0, 0, 0)), (-10, -20, 30))
  np.testing.assert_array_equal(
    volume.index_to_lps_mm((1, 1, 1)), (-9.25, -19.375, 32.5)
  )
  assert volume.warnings == () and volume.series_uid == ''


@pytest.mark.parametrize('suffix', ('.mha', '.nrrd'))
def test_slices_to_the_feet_and_mirrored_columns(tmp_path, suffix):
  path = _write(tmp_path / f'ct{suffix}', _image(direction=np.diag([-1, 1, -1])))
  volume = readers.read_ct(path)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu()[::-1])
  assert volume.affine[2, 0] == 2.5 and volume.affine[0, 2] == -0.75
  # Results lie over the file: its own axes, directions and origin.
  assert volume.stored_grid.slices_reversed
  np.testing.assert_array_equal(
    volume.stored_grid.affine @ (0, 0, 0, 1), (10, 20, 30, 1)
  )


@pytest.mark.parametrize('kind', (np.int32, np.float32, np.float64))
def test_other_numbers_are_rounded_as_those_of_nifti(tmp_path, kind):
  hu = odd_series.chest_hu().astype(kind)
  if np.dtype(kind).kind == 'f':
    hu += 0.25
  volume = readers.read_ct(_write(tmp_path / 'ct.nrrd', _image(hu)))
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


@pytest.mark.parametrize('space', (b'right-anterior-superior', b'RAS'))
def test_nrrd_in_ras(tmp_path, space):
  path = _change(_write(tmp_path / 'ct.nrrd'), (b'left-posterior-superior', space))
  volume = readers.read_ct(path)
  np.testing.assert_array_equal(volume.index_to_lps_mm((0, 0, 0)), (10, 20, 30))
  assert volume.affine[0, 2] == -0.75 and volume.affine[1, 1] == -0.625


@pytest.mark.parametrize('suffix', ('.mha', '.nrrd'))
def test_files_are_known_by_their_content(tmp_path, suffix):
  _write(tmp_path / f'x{suffix}').rename(tmp_path / 'ct')
  np.testing.assert_array_equal(
    readers.read_ct(tmp_path / 'ct').hu, odd_series.chest_hu()
  )


@pytest.mark.parametrize('suffix', (*_SUFFIXES, '.nii', '.nii.gz'))
@pytest.mark.parametrize('folder', ('', 'a/b/'))
def test_one_volume_in_a_zip(tmp_path, suffix, folder):
  (tmp_path / 'x').mkdir()
  _write(tmp_path / 'x' / f'ct{suffix}')
  with zipfile.ZipFile(tmp_path / 'ct.zip', 'w', zipfile.ZIP_DEFLATED) as target:
    for path in sorted((tmp_path / 'x').iterdir()):
      target.write(path, folder + path.name)
    target.writestr('notes.txt', 'from the archive')
  volume = readers.read_ct(tmp_path / 'ct.zip')
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.625, 0.75), rtol=1e-6)


def test_several_volumes_in_a_zip(tmp_path):
  with zipfile.ZipFile(tmp_path / 'ct.zip', 'w') as target:
    target.write(_write(tmp_path / 'a.nrrd'), 'a.nrrd')
    target.write(_write(tmp_path / 'b.nii'), 'b.nii')
  assert '2 volumes in one zip' in _refusal(tmp_path / 'ct.zip')


def test_a_damaged_member_of_a_zip(tmp_path):
  _write(tmp_path / 'a.nii')
  with zipfile.ZipFile(tmp_path / 'ct.zip', 'w') as target:
    target.write(tmp_path / 'a.nii', 'a.nii')
  data = bytearray((tmp_path / 'ct.zip').read_bytes())
  data[2000] ^= 4
  (tmp_path / 'ct.zip').write_bytes(data)
  assert 'the zip is damaged' in _refusal(tmp_path / 'ct.zip')


@pytest.mark.parametrize('count', (1, 3))
def test_a_folder_of_nrrd(tmp_path, count):
  for number in range(count):
    _write(tmp_path / f'{number}.nrrd')
  text = _refusal(tmp_path)
  assert f'{count} of {count} file(s) are NRRD' in text
  assert 'give the one file to read' in text


def _vector(image):
  return sitk.Compose(image, image)


def _time(image):
  return sitk.JoinSeries([image, image])


@pytest.mark.parametrize('suffix', ('.mha', '.nrrd'))
@pytest.mark.parametrize(
  'change, words',
  (
    (_vector, 'several'),
    (_time, '(40, 36, 8, 2)'),
    (lambda image: image[:, :, 3], 'three axes'),
    (lambda image: sitk.Cast(image, sitk.sitkUInt8) * 0, 'no voxel is air'),
    (lambda image: image + 1024, 'no Hounsfield units of a chest'),
    (lambda image: sitk.Cast(image, sitk.sitkInt32) + 40000, 'up to 32767'),
    (lambda image: sitk.Cast(image, sitk.sitkFloat32) / 0, 'NaN or infinity'),
  ),
)
def test_images_that_are_refused(tmp_path, suffix, change, words):
  assert words in _refusal(_write(tmp_path / f'ct{suffix}', change(_image())))


def test_a_fourth_axis_of_one(tmp_path):
  path = _write(tmp_path / 'ct.mha', sitk.JoinSeries([_image()]))
  np.testing.assert_array_equal(readers.read_ct(path).hu, odd_series.chest_hu())


@pytest.mark.parametrize(
  'suffix, old, new, words',
  (
    ('.mha', b'TransformMatrix', b'Transformation_', 'sides of the patient'),
    ('.mha', b'ElementSpacing', b'Element_Spaces', 'spacing of the voxels'),
    ('.mha', b'DimSize = 40 36 8', b'DimSize = 40 36 9', 'truncated'),
    ('.mha', b'DimSize = 40 36 8', b'DimSize =        ', 'no sizes'),
    ('.mha', b'MET_SHORT', b'MET_OTHER', 'found OTHER'),
    ('.mha', b'ElementSpacing', b'DistanceUnits = cm\nElementSpacing', 'found cm'),
    ('.mhd', b'ct.raw', b'../secret/ct.raw', 'leads elsewhere'),
    ('.mhd', b'ct.raw', b'/etc/hostname', 'leads elsewhere'),
    ('.mhd', b'ct.raw', b'LIST', 'list of files'),
    ('.mhd', b'ct.raw', b'%03d.raw 1 9 1', 'list of files'),
    ('.mhd', b'ct.raw', b'other.raw', 'other.raw, is required beside'),
    ('.nhdr', b'ct.raw', b'other.raw', 'other.raw, is required beside'),
    ('.nrrd', b'left-posterior-superior', b'scanner-xyz', 'found scanner-xyz'),
    ('.nrrd', b'space: left-posterior-superior\n', b'', 'no space'),
    ('.nrrd', b'endian', b'space units: "um" "um" "um"\nendian', 'found um'),
    ('.nrrd', b'encoding: raw', b'encoding: bzip2', 'found bzip2'),
    ('.nrrd', b'type: short', b'type: block', 'found block'),
    ('.nrrd', b'sizes: 40 36 8', b'sizes: 40 36 80000', 'truncated'),
    ('.nrrd', b'(0.75,0,0)', b'(-0.75,0,0.75)', 'perpendicular'),
  ),
)
def test_headers_that_are_refused(tmp_path, suffix, old, new, words):
  assert words in _refusal(_change(_write(tmp_path / f'ct{suffix}'), (old, new)))


@pytest.mark.parametrize(
  'suffix, old', (('.mha', b'Offset = -10 -20 30\n'), ('.nrrd', b'space origin'))
)
def test_a_place_that_is_not_given_is_a_warning(tmp_path, suffix, old):
  new = b'' if suffix == '.mha' else b'#space origin'
  volume = readers.read_ct(_change(_write(tmp_path / f'ct{suffix}'), (old, new)))
  assert 'no origin given' in volume.warnings[0]


@pytest.mark.parametrize('suffix', ('.mha', '.nrrd'))
@pytest.mark.parametrize('packed', (False, True), ids=('raw', 'packed'))
@pytest.mark.parametrize('share', (0.002, 0.05, 0.5, 0.99))
def test_truncated_files_say_nothing_else(tmp_path, capfd, suffix, packed, share):
  path = _write(tmp_path / f'ct{suffix}', packed=packed)
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  _refusal(path)
  assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('suffix', ('.mha', '.mhd', '.nrrd', '.nhdr'))
@pytest.mark.parametrize('place', (0.5, -5))
def test_a_changed_bit_is_found_by_the_checksum(tmp_path, capfd, suffix, place):
  path = _write(tmp_path / f'ct{suffix}', packed=True)
  others = [other for other in tmp_path.iterdir() if other != path]
  path_of_data = others[0] if others else path
  data = bytearray(path_of_data.read_bytes())
  data[int(len(data) * place) if place > 0 else place] ^= 4
  path_of_data.write_bytes(data)
  assert 'damaged' in _refusal(path)
  assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize(
  'old, new',
  (
    (b'CompressedDataSize = ', b'CompressedDataSize = 1 #'),
    (b'NDims = 3', b'NDims = 0'),
    (b'NDims = 3', b'Ndims = 3'),
    (b'TransformMatrix = 1 0 0', b'TransformMatrix = 1 x 0'),
  ),
)
def test_what_simpleitk_says_of_a_header_stays_unsaid(tmp_path, capfd, old, new):
  _refusal(_change(_write(tmp_path / 'ct.mha', packed=True), (old, new)))
  assert capfd.readouterr() == ('', '')


_WITHOUT = """
import sys
sys.modules['SimpleITK'] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == 'SimpleITK' else find(name)
import covid_tf
try:
  covid_tf.read_ct(sys.argv[1])
except covid_tf.CTReadError as error:
  print(error)
"""


def test_without_simpleitk_the_message_names_the_extra(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', _WITHOUT, str(_write(tmp_path / 'ct.nrrd'))],
    capture_output=True,
    text=True,
    check=True,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert 'pip install SimpleITK' in done.stdout and '[itk]' in done.stdout
  assert done.stderr == ''


def test_a_nifti_of_the_same_image_is_the_same_volume(tmp_path):
  from_nrrd = readers.read_ct(_write(tmp_path / 'ct.nrrd'))
  from_nifti = readers.read_ct(_write(tmp_path / 'ct.nii.gz'))
  np.testing.assert_array_equal(from_nrrd.hu, from_nifti.hu)
  np.testing.assert_allclose(from_nrrd.affine, from_nifti.affine, atol=1e-5)
  image = nibabel.load(tmp_path / 'ct.nii.gz')
  np.testing.assert_allclose(image.affine, maps.ras_affine(from_nrrd.affine), atol=1e-5)

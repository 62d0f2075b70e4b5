"""NIfTI volumes: place, sides and scale, compared with SimpleITK."""

import gzip
import itertools
import struct

import nibabel
import numpy as np
import odd_series
import pytest
import reference_reader

from covid_tf import errors
from covid_tf import readers

_RAS = np.array([[-0.75, 0, 0, 90], [0, -0.75, 0, 80], [0, 0, 2.5, -40], [0, 0, 0, 1]])


def _ijk(hu):
  return np.ascontiguousarray(hu.transpose(2, 1, 0))


def _write(path, affine=None, data=None, form='both', units='mm', slope=None):
  affine = _RAS if affine is None else affine
  data = _ijk(odd_series.chest_hu()) if data is None else data
  image = nibabel.Nifti1Image(data, affine)
  image.set_sform(
    affine if form in ('both', 'sform') else None,
    code=1 if form in ('both', 'sform') else 0,
  )
  image.set_qform(
    affine if form in ('both', 'qform') else None,
    code=1 if form in ('both', 'qform') else 0,
  )
  image.header.set_xyzt_units(units)
  if slope:
    image.header.set_slope_inter(*slope)
  nibabel.save(image, path)
  return path


@pytest.mark.parametrize('suffix', ('.nii', '.nii.gz'))
@pytest.mark.parametrize('form', ('both', 'sform', 'qform'))
def test_place_and_values_equal_simpleitk(tmp_path, suffix, form):
  path = _write(tmp_path / f'ct{suffix}', form=form)
  volume = readers.read_ct(path)
  hu, affine = reference_reader.read_file(path)
  np.testing.assert_array_equal(volume.hu, hu)
  np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
  assert volume.series_uid == volume.study_uid == ''


@pytest.mark.parametrize('signs', list(itertools.product((1, -1), repeat=3)))
def test_voxels_keep_their_place_for_every_direction(tmp_path, signs):
  affine = _RAS @ np.diag([*signs, 1])
  volume = readers.read_ct(_write(tmp_path / 'ct.nii', affine))
  assert volume.affine[2, 0] > 0
  _assert_same_places(volume, affine)


@pytest.mark.parametrize('axes', list(itertools.permutations(range(3))))
def test_axes_in_any_order(tmp_path, axes):
  data = _ijk(odd_series.chest_hu())
  affine = _RAS[:, [*axes, 3]]
  volume = readers.read_ct(_write(tmp_path / 'ct.nii', affine, data.transpose(axes)))
  assert volume.shape == odd_series.SHAPE
  _assert_same_places(volume, affine, data.transpose(axes))


def _assert_same_places(volume, ras, data=None):
  data = _ijk(odd_series.chest_hu()) if data is None else data
  index = np.argwhere(np.ones(volume.shape, bool))[::97]
  lps = volume.index_to_lps_mm(index)
  stored = (lps * (-1, -1, 1) - ras[:3, 3]) @ np.linalg.inv(ras[:3, :3]).T
  stored = np.rint(stored).astype(int)
  np.testing.assert_array_equal(volume.hu[tuple(index.T)], data[tuple(stored.T)])


def test_scale_and_values_below_air(tmp_path):
  stored = np.clip(_ijk(odd_series.chest_hu()) // 2 + 12, -1000, 1000)
  stored[:2] = -900
  path = _write(tmp_path / 'ct.nii', data=stored.astype(np.int16), slope=(2.0, -24.0))
  volume = readers.read_ct(path)
  expected = np.maximum(stored.astype(int) * 2 - 24, -1024).transpose(2, 1, 0)
  np.testing.assert_array_equal(volume.hu, expected)
  assert volume.warnings == ('576 voxels below -1024 HU were set to -1024 HU',)


def test_floating_point_values(tmp_path):
  data = _ijk(odd_series.chest_hu()).astype(np.float32) + 0.3
  volume = readers.read_ct(_write(tmp_path / 'ct.nii.gz', data=data))
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


def test_a_folder_with_one_nifti(tmp_path):
  _write(tmp_path / 'ct.nii')
  assert readers.read_ct(tmp_path).shape == odd_series.SHAPE
  _write(tmp_path / 'other.nii')
  with pytest.raises(errors.CTReadError, match='2 NIfTI files'):
    readers.read_ct(tmp_path)


def test_a_nifti_beside_a_dicom_series_is_no_choice(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  _write(tmp_path / 'mask.nii.gz')
  assert readers.read_ct(tmp_path).series_uid == odd_series.SERIES_UID


def test_micrometres_are_converted(tmp_path):
  affine = _RAS.copy()
  affine[:3] *= 1000
  volume = readers.read_ct(_write(tmp_path / 'ct.nii', affine, units='micron'))
  np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.75, 0.75), rtol=1e-6)


def _nan():
  data = _ijk(odd_series.chest_hu()).astype(np.float32)
  data[3, 4, 5] = np.nan
  return data


@pytest.mark.parametrize(
  'changes, message',
  (
    ({'form': 'none'}, 'neither sform nor qform'),
    ({'data': np.zeros((20, 20, 8, 3), np.int16)}, 'three axes'),
    ({'data': np.zeros((20, 20, 1), np.int16)}, 'three axes'),
    ({'data': _nan()}, 'NaN or infinity'),
    ({'data': np.ones((20, 20, 8), np.uint8)}, 'no voxel is air, .* lowest is 1'),
    ({'data': np.full((20, 20, 8), 40000, np.int32)}, 'found 40000'),
    ({'data': np.zeros((20, 20, 8), np.complex64)}, 'one number a voxel'),
    ({'affine': np.diag([0.01, 0.7, 2.0, 1])}, 'spacings'),
    ({'affine': np.diag([90, 0.7, 2.0, 1])}, 'spacings'),
    (
      {
        'affine': np.array(
          [[1, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
        ),
        'form': 'sform',
      },
      'not perpendicular',
    ),
    (
      {
        'affine': np.array(
          [[1, 0, 0, 0], [0, 0.7, -0.7, 0], [0, 0.7, 0.7, 0], [0, 0, 0, 1.0]]
        )
      },
      'axial',
    ),
  ),
)
def test_volumes_that_are_refused(tmp_path, changes, message):
  path = _write(tmp_path / 'ct.nii', **changes)
  with pytest.raises(errors.CTReadError, match=message):
    readers.read_ct(path)


def test_sform_and_qform_that_disagree(tmp_path):
  path = _write(tmp_path / 'ct.nii')
  image = nibabel.load(path)
  other = _RAS.copy()
  other[2, 3] += 7
  image.set_qform(other, code=1)
  nibabel.save(image, tmp_path / 'two.nii')
  with pytest.raises(errors.CTReadError, match='differ by 7.0 mm'):
    readers.read_ct(tmp_path / 'two.nii')


@pytest.mark.parametrize('suffix', ('.nii', '.nii.gz'))
@pytest.mark.parametrize('share', (0.001, 0.01, 0.5, 0.99))
def test_truncated_files(tmp_path, suffix, share):
  path = _write(tmp_path / f'ct{suffix}')
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  with pytest.raises(errors.CTReadError):
    readers.read_ct(path)


def test_a_header_that_asks_for_all_memory(tmp_path):
  path = _write(tmp_path / 'ct.nii')
  data = bytearray(path.read_bytes())
  data[42:48] = np.array([32767, 32767, 32767], '<i2').tobytes()
  path.write_bytes(data)
  (tmp_path / 'ct.nii.gz').write_bytes(gzip.compress(data))
  for name in ('ct.nii', 'ct.nii.gz'):
    with pytest.raises(errors.CTReadError, match='cannot hold'):
      readers.read_ct(tmp_path / name)


@pytest.mark.parametrize('place', (0.5, 0.9))
def test_a_changed_bit_is_found_by_the_checksum(tmp_path, place):
  # Voxels as they are, not coded, so that a changed bit breaks nothing else.
  path = _write(tmp_path / 'ct.nii')
  packed = bytearray(gzip.compress(path.read_bytes(), compresslevel=0))
  packed[int(len(packed) * place)] ^= 4
  (tmp_path / 'ct.nii.gz').write_bytes(packed)
  with pytest.raises(errors.CTReadError, match='checksum'):
    readers.read_ct(tmp_path / 'ct.nii.gz')


@pytest.mark.parametrize('lost', (1, 4, 8))
def test_a_checksum_that_is_cut_off(tmp_path, lost):
  path = _write(tmp_path / 'ct.nii.gz')
  path.write_bytes(path.read_bytes()[:-lost])
  with pytest.raises(errors.CTReadError, match='its end is missing'):
    readers.read_ct(path)


@pytest.mark.parametrize('kind', (nibabel.Nifti1Image, nibabel.Nifti2Image))
@pytest.mark.parametrize('order', ('<', '>'))
@pytest.mark.parametrize('suffix', ('.nii', '.nii.gz'))
def test_both_versions_in_both_byte_orders(tmp_path, kind, order, suffix):
  header = kind.header_class(endianness=order)
  header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
  nibabel.save(kind(_ijk(odd_series.chest_hu()), _RAS, header), tmp_path / f'a{suffix}')
  volume = readers.read_ct(tmp_path / f'a{suffix}')
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


@pytest.mark.parametrize(
  'change',
  (
    lambda hu: hu / 1000.0,  # Scaled to about -1 to 1.
    lambda hu: np.clip(hu, -160, 240),  # A window of soft tissue.
    lambda hu: np.where(np.arange(hu.size).reshape(hu.shape), hu + 1024, -1),
  ),
)
def test_values_that_were_scaled_cut_or_shifted(tmp_path, change):
  path = _write(tmp_path / 'ct.nii', data=_ijk(change(odd_series.chest_hu())))
  with pytest.raises(errors.CTReadError, match='no Hounsfield units of a chest'):
    readers.read_ct(path)


def test_a_sidecar_of_text_beside_a_nifti(tmp_path):
  _write(tmp_path / 'ct.nii.gz')
  (tmp_path / 'ct.json').write_text('{"ConversionSoftware": "dcm2niix"}')
  assert readers.read_ct(tmp_path).shape == odd_series.SHAPE


@pytest.mark.parametrize('kind', (nibabel.Nifti1Image, nibabel.Nifti2Image))
@pytest.mark.parametrize(
  'name, packed',
  (
    ('plain.nii.gz', False),
    ('packed.nii', True),
    ('PACKED.NII', True),
    ('ct', False),
    ('ct.gz', True),
    ('ct.dcm', True),
    ('ct.img', False),
  ),
)
def test_files_are_known_by_their_content(tmp_path, kind, name, packed):
  image = kind(_ijk(odd_series.chest_hu()), _RAS)
  data = image.to_bytes()
  (tmp_path / 'study').mkdir()
  path = tmp_path / 'study' / name
  path.write_bytes(gzip.compress(data) if packed else data)
  for place in (path, path.parent):
    np.testing.assert_array_equal(readers.read_ct(place).hu, odd_series.chest_hu())


def test_a_dicom_file_with_the_name_of_nifti(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  for path in list(tmp_path.iterdir()):
    path.rename(path.with_suffix('.nii'))
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


@pytest.mark.parametrize('given', ('', 'ct.hdr', 'ct.img'))
@pytest.mark.parametrize(
  'kind', (nibabel.Nifti1Pair, nibabel.Nifti2Pair, nibabel.AnalyzeImage)
)
def test_pairs_are_named(tmp_path, kind, given):
  nibabel.save(kind(_ijk(odd_series.chest_hu()), _RAS), tmp_path / 'ct.img')
  with pytest.raises(errors.CTReadError, match=r'pair of NIfTI.*\.hdr and \.img.*one'):
    readers.read_ct(tmp_path / given)


@pytest.mark.parametrize('form', ('both', 'qform'))
def test_nothing_of_what_nibabel_corrects_is_printed(tmp_path, capfd, form):
  path = _write(tmp_path / 'ct.nii', form=form)
  _overwrite(path, 80, struct.pack('<f', -0.75))
  np.testing.assert_array_equal(readers.read_ct(path).hu, odd_series.chest_hu())
  assert capfd.readouterr() == ('', '')


def _overwrite(path, place, value):
  data = bytearray(path.read_bytes())
  data[place : place + len(value)] = value
  path.write_bytes(data)


def test_a_scale_that_is_no_number_is_named(tmp_path):
  path = _write(tmp_path / 'ct.nii')
  _overwrite(path, 112, struct.pack('<ff', 1, np.nan))
  with pytest.raises(errors.CTReadError, match='a finite scl_slope and scl_inter'):
    readers.read_ct(path)


@pytest.mark.parametrize('units', ('meter', 'micron', 'unknown'))
def test_a_unit_that_contradicts_the_affine_is_named(tmp_path, units):
  affine = _RAS * 1000 if units == 'unknown' else _RAS
  affine = affine * 1e-3 if units == 'micron' else affine
  path = _write(tmp_path / 'ct.nii', affine=affine, units=units)
  with pytest.raises(
    errors.CTReadError, match='its header says .*(meter|micron|no un)'
  ):
    readers.read_ct(path)

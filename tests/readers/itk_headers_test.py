"""Headers of MetaImage and NRRD as other writers than SimpleITK make them."""

import gzip
import re
import zipfile
import zlib

import numpy as np
import odd_series
import pytest

from covid_tf import errors
from covid_tf import readers

_HU = odd_series.chest_hu()
_VOXELS = _HU.tobytes()
_META = {
  'ObjectType': 'Image',
  'NDims': '3',
  'BinaryData': 'True',
  'BinaryDataByteOrderMSB': 'False',
  'CompressedData': 'False',
  'TransformMatrix': '1 0 0 0 1 0 0 0 1',
  'Offset': '-10 -20 30',
  'ElementSpacing': '0.75 0.625 2.5',
  'DimSize': '40 36 8',
  'ElementType': 'MET_SHORT',
  'ElementDataFile': 'LOCAL',
}
_NRRD = {
  'type': 'short',
  'dimension': '3',
  'space': 'left-posterior-superior',
  'sizes': '40 36 8',
  'space directions': '(0.75,0,0) (0,0.625,0) (0,0,2.5)',
  'kinds': 'domain domain domain',
  'endian': 'little',
  'encoding': 'raw',
  'space origin': '(-10,-20,30)',
}


def _text(fields, changes, separator):
  merged = {name: value for name, value in (fields | changes).items() if value}
  if 'ElementDataFile' in merged:  # It ends the header.
    merged['ElementDataFile'] = merged.pop('ElementDataFile')
  return ''.join(f'{name}{separator}{value}\n' for name, value in merged.items())


def _meta(path, changes=None, voxels=_VOXELS):
  path.write_bytes(_text(_META, changes or {}, ' = ').encode() + voxels)
  return path


def _nrrd(path, changes=None, voxels=_VOXELS):
  text = 'NRRD0004\n' + _text(_NRRD, changes or {}, ': ') + '\n'
  path.write_bytes(text.encode() + voxels)
  return path


def _assert_read(path, notes=0):
  volume = readers.read_ct(path)
  np.testing.assert_array_equal(volume.hu, _HU)
  np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.625, 0.75))
  if not notes:
    np.testing.assert_allclose(volume.index_to_lps_mm((0, 0, 0)), (-10, -20, 30))
  assert len(volume.warnings) == notes
  return volume


def _refusal(path) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(path)
  return str(caught.value)


@pytest.mark.parametrize(
  'changes, voxels',
  (
    ({}, _VOXELS),
    ({'ElementSpacing': '', 'ElementSize': '0.75 0.625 2.5'}, _VOXELS),
    ({'ElementSize': '1 1 5'}, _VOXELS),  # That of the detector; the spacing counts.
    ({'CenterOfRotation': '10 20 30'}, _VOXELS),
    ({'AnatomicalOrientation': 'RAI', 'DistanceUnits': 'mm'}, _VOXELS),
    ({'BinaryDataByteOrderMSB': 'True'}, _HU.astype('>i2').tobytes()),
    (
      {
        'CompressedData': 'True',
        'CompressedDataSize': str(len(zlib.compress(_VOXELS))),
      },
      zlib.compress(_VOXELS),
    ),
  ),
)
def test_metaimage_of_other_writers(tmp_path, changes, voxels):
  _assert_read(_meta(tmp_path / 'ct.mha', changes, voxels))


@pytest.mark.parametrize(
  'changes, words',
  (
    ({'ElementSpacing': '0.75 -0.625 2.5'}, 'ElementSpacing must be .* above 0'),
    ({'ElementSpacing': '0.75 0.625 0'}, 'ElementSpacing must be .* above 0'),
    ({'ElementSpacing': '0.75 0.625 nan'}, 'ElementSpacing must be .* found 0.75 0'),
    ({'ElementSpacing': '0,75 0,625 2,5'}, 'must be .* found 0,75 0,625 2,5; correct'),
    ({'TransformMatrix': '2 0 0 0 1 0 0 0 1'}, 'length 1, found lengths 2, 1, 1'),
    ({'TransformMatrix': '0 0 0 0 0 0 0 0 0'}, 'length 1, found lengths 0, 0, 0'),
    ({'TransformMatrix': '1 0 0 0 1 0 0 0'}, 'a square matrix of numbers'),
    ({'TransformMatrix': 'inf 0 0 0 1 0 0 0 1'}, 'a square matrix of numbers'),
    ({'CompressedData': 'True'}, 'CompressedDataSize is required'),
  ),
)
def test_metaimage_that_simpleitk_would_read_as_another(tmp_path, changes, words):
  voxels = zlib.compress(_VOXELS) if 'CompressedData' in changes else _VOXELS
  assert re.search(words, _refusal(_meta(tmp_path / 'ct.mha', changes, voxels)))


@pytest.mark.parametrize('write, suffix', ((_meta, '.mhd'), (_nrrd, '.nhdr')))
@pytest.mark.parametrize('name', ('Köln.raw', '肺.raw', 'my ct.raw'))
def test_names_of_voxels_are_those_of_files(tmp_path, write, suffix, name):
  (tmp_path / name).write_bytes(_VOXELS)
  key = 'ElementDataFile' if write is _meta else 'data file'
  _assert_read(write(tmp_path / f'ct{suffix}', {key: name}, b''))


@pytest.mark.parametrize('separator', ('/', '\\'))
def test_a_zip_of_windows_has_backslashes(tmp_path, separator):
  (tmp_path / 'ct.raw').write_bytes(_VOXELS)
  _meta(tmp_path / 'ct.mhd', {'ElementDataFile': 'ct.raw'}, b'')
  with zipfile.ZipFile(tmp_path / 'ct.zip', 'w') as archive:
    for name in ('ct.mhd', 'ct.raw'):
      archive.write(tmp_path / name, f'study{separator}{name}')
  _assert_read(tmp_path / 'ct.zip')


@pytest.mark.parametrize(
  'changes, voxels',
  (
    ({}, _VOXELS),
    ({'space units': '"mm" "mm" "mm"'}, _VOXELS),
    ({'space units': '"millimeter" "Millimeters" "millimetre"'}, _VOXELS),
    ({'kinds': 'space space space'}, _VOXELS),
    ({'endian': 'big'}, _HU.astype('>i2').tobytes()),
    ({'encoding': 'gzip'}, gzip.compress(_VOXELS)),
    ({'encoding': 'gzip', 'byte skip': '50'}, gzip.compress(bytes(50) + _VOXELS)),
    (
      {'encoding': 'ascii', 'endian': ''},
      ' '.join(map(str, _HU.ravel())).encode(),
    ),
  ),
)
def test_nrrd_of_other_writers(tmp_path, changes, voxels):
  _assert_read(_nrrd(tmp_path / 'ct.nrrd', changes, voxels))


@pytest.mark.parametrize('origin', ('', '(nan,nan,nan)'))
def test_an_origin_that_is_no_place_is_said_to_be_unknown(tmp_path, origin):
  volume = _assert_read(_nrrd(tmp_path / 'ct.nrrd', {'space origin': origin}), notes=1)
  assert 'no origin given, 0 assumed' in volume.warnings[0]


@pytest.mark.parametrize(
  'changes, words',
  (
    ({'endian': ''}, 'does not state the order of bytes'),
    ({'space units': '"cm" "cm" "cm"'}, 'millimetres are required, found cm'),
    ({'space units': '"um" "mm" "mm"'}, 'millimetres are required, found um'),
    ({'encoding': 'gzip', 'byte skip': '40'}, 'damaged: its packed voxels'),
  ),
)
def test_nrrd_that_is_refused(tmp_path, changes, words):
  voxels = gzip.compress(bytes(50) + _VOXELS) if 'encoding' in changes else _VOXELS
  assert words in _refusal(_nrrd(tmp_path / 'ct.nrrd', changes, voxels))

"""Whatever the bytes: a volume of the written tissue, or CTReadError.

The same examples at every run; new and more ones by hand:
COVID_TF_FUZZ_EXAMPLES=20000 pytest --hypothesis-profile=search \
    tests/readers/fuzz_test.py
"""

import functools
import gzip
import io
import os
import pathlib
import tempfile
import zipfile

import hypothesis
from hypothesis import strategies as st
import nibabel
import numpy as np
import odd_series
import pydicom
from pydicom import uid

from covid_tf import errors
from covid_tf import readers

_EXAMPLES = int(os.environ.get('COVID_TF_FUZZ_EXAMPLES', 60))
_SYNTAXES = (
  uid.ImplicitVRLittleEndian,
  uid.ExplicitVRLittleEndian,
  uid.ExplicitVRBigEndian,
  uid.DeflatedExplicitVRLittleEndian,
  uid.RLELossless,
  uid.JPEGLosslessSV1,
  uid.JPEGLSLossless,
  uid.JPEG2000Lossless,
)
_settings = hypothesis.settings(
  max_examples=_EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck)
)
_HU = odd_series.chest_hu((3, 36, 40))


@functools.cache
def _files(kind) -> tuple[bytes, ...]:
  """The bytes of a good series in a transfer syntax, or enhanced."""
  slices = odd_series.series(_HU)
  if kind == 'enhanced':
    slices, kind = [odd_series.enhanced(slices)], uid.ExplicitVRLittleEndian
  with tempfile.TemporaryDirectory() as folder:
    odd_series.save(slices, folder, kind)
    return tuple(path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir()))


def _read_or_refuse(files) -> None:
  """Reads files as a folder; anything but CTReadError is a failure."""
  with tempfile.TemporaryDirectory() as folder:
    for index, data in enumerate(files):
      (pathlib.Path(folder) / f'{index}.dcm').write_bytes(data)
    _read(pathlib.Path(folder))


def _read(path):
  try:
    volume = readers.read_ct(path)
  except errors.CTReadError as error:
    assert len(str(error)) > 10
    assert 'damaged or cannot be read (' not in str(error), str(error)
    return
  assert volume.hu.dtype == np.int16 and volume.hu.min() >= -1024
  assert volume.hu.size < 100 * _HU.size
  assert 0.05 <= volume.spacing_mm[0] <= 50


_changes = st.lists(
  st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)),
  min_size=1,
  max_size=4,
)


@_settings
@hypothesis.given(st.sampled_from((*_SYNTAXES, 'enhanced')), _changes, st.booleans())
def test_changed_bytes(kind, changes, in_header):
  first, *others = _files(kind)
  data = bytearray(first)
  for place, piece in changes:
    start = int(place * (min(len(data), 1400) if in_header else len(data)))
    data[start : start + len(piece)] = piece
  _read_or_refuse([bytes(data), *others])


@_settings
@hypothesis.given(
  st.sampled_from((*_SYNTAXES, 'enhanced')), st.floats(0, 1), st.binary(max_size=20)
)
def test_cut_files(kind, share, tail):
  first, *others = _files(kind)
  _read_or_refuse([first[: int(share * len(first))] + tail, *others])


_values = st.one_of(
  st.binary(max_size=24),
  st.sampled_from(
    (
      b'',
      b'NaN',
      b'-inf',
      b'1e308\\1e308',
      b'0\\0',
      b'1\\2\\3\\4\\5\\6',
      b'2,5\\2,5',
      b'\xff\xff',
      b'\x00\x00',
      b'1' * 64,
      b'\\\\\\',
      b'-0.0',
    )
  ),
)
_keywords = st.sampled_from(
  (
    'PixelSpacing',
    'ImagePositionPatient',
    'ImageOrientationPatient',
    'RescaleSlope',
    'RescaleIntercept',
    'RescaleType',
    'Rows',
    'Columns',
    'BitsStored',
    'BitsAllocated',
    'HighBit',
    'PixelRepresentation',
    'SamplesPerPixel',
    'NumberOfFrames',
    'PixelPaddingValue',
    'SeriesInstanceUID',
    'StudyInstanceUID',
    'SOPInstanceUID',
    'SOPClassUID',
    'Modality',
    'ImageType',
    'AcquisitionDate',
    'SliceThickness',
    'ConvolutionKernel',
    'PatientID',
    'FrameOfReferenceUID',
    'PerFrameFunctionalGroupsSequence',
    'PhotometricInterpretation',
  )
)


@_settings
@hypothesis.given(
  st.lists(st.tuples(_keywords, _values), min_size=1, max_size=3), st.booleans()
)
def test_changed_tags(changes, in_all):
  files = []
  for index, data in enumerate(_files(uid.ExplicitVRLittleEndian)):
    ds = pydicom.dcmread(io.BytesIO(data))
    if in_all or index == 0:
      for keyword, value in changes:
        tag = pydicom.datadict.tag_for_keyword(keyword)
        ds.add_new(tag, 'OB', value + b' ' * (len(value) % 2))
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, implicit_vr=False, little_endian=True)
    files.append(buffer.getvalue())
  _read_or_refuse(files)


@_settings
@hypothesis.given(
  st.binary(max_size=600),
  st.sampled_from(
    (
      b'',
      bytes(128) + b'DICM',
      b'\x08\0\x16\0UI',
      b'\x02\0\0\0UL\x04\0',
      b'PK\3\4',
      b'\0\x08\0\x05CS',
    )
  ),
  st.sampled_from(('a', 'a.zip', 'a.nii', 'a.nii.gz')),
)
def test_random_bytes(data, start, name):
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / name
    path.write_bytes(start + data)
    _read(path)
    _read(pathlib.Path(folder))


@functools.cache
def _nifti() -> bytes:
  image = nibabel.Nifti1Image(
    np.ascontiguousarray(_HU.transpose(2, 1, 0)), np.diag([0.7, 0.7, 2.5, 1])
  )
  return image.to_bytes()


@functools.cache
def _zip() -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
    for index, data in enumerate(_files(uid.ExplicitVRLittleEndian)):
      archive.writestr(f'{index}.dcm', data)
  return buffer.getvalue()


@_settings
@hypothesis.given(
  st.sampled_from(('a.nii', 'a.nii.gz', 'a.zip')), _changes, st.floats(0.3, 1)
)
def test_changed_archives_and_nifti(name, changes, share):
  data = bytearray(_zip() if name == 'a.zip' else _nifti())
  for place, piece in changes:
    start = int(place * (len(data) if name == 'a.zip' else 352))
    data[start : start + len(piece)] = piece
  if name == 'a.nii.gz':
    data = gzip.compress(data, mtime=0)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / name
    path.write_bytes(data[: int(share * len(data))] if share < 0.6 else data)
    _read(path)

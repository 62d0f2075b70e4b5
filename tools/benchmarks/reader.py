"""How fast a series is read, beside the readers that people use today.

  python tools/benchmarks/reader.py                  # 300 slices of 512 x 512
  python tools/benchmarks/reader.py --slices 100 --files 1000 --json

The readers take turns on the same files in one run, so a slow minute of the machine
slows all; the files are read once before (warm cache). The figures are

  simpleitk_ratio       read_ct / SimpleITK's series reader, uncompressed
  simpleitk_ratio_jpeg  the same, JPEG lossless
  dicom2nifti_ratio     read_ct / dicom2nifti, uncompressed
  memory_ratio          growth of the process at its peak / size of the HU volume
  from_array_ratio      CTVolume.from_array, with its checks / read_ct of the same NIfTI
  from_sitk_ratio       the same of CTVolume.from_sitk
  growth_ratio          seconds a slice at all slices / at half of them
  listing_seconds       headers of --files files in 20 series
  seconds               of each reader
"""

import argparse
import json
import multiprocessing
import pathlib
import tempfile
import time

import gdcm
import nibabel
import numpy as np
import pydicom
from pydicom import dataset
from pydicom import sequence
from pydicom import uid

from covid_tf import streams

_SIZE = 512
_SERIES_IN_LISTING = 20
_PRIVATE_GROUPS = (0x0019, 0x0021, 0x0027, 0x0029, 0x0043, 0x0045)


def main():
  """Writes the series, times the readers, prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--slices', type=int, default=300)
  parser.add_argument('--files', type=int, default=5000, help='files to list')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument(
    '--data', type=pathlib.Path, help='keep the series there, or use them again'
  )
  parser.add_argument(
    '--cpu',
    action='store_true',
    help='CPU seconds instead of those on the wall, for a busy machine',
  )
  parser.add_argument('--json', action='store_true')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    figures = measure(args.data or pathlib.Path(folder), args)
  print(json.dumps(figures) if args.json else _table(figures))


def measure(folder: pathlib.Path, args) -> dict:
  """All figures; the series are written below `folder`."""
  plain = write_series(folder / 'plain', args.slices)
  half = write_series(folder / 'half', args.slices // 2)
  jpeg = compress(plain, folder / 'jpeg')
  volume = _read_ct(plain)
  image, nifti = volume.to_sitk(), folder / 'plain.nii'
  nibabel.save(volume.to_nibabel(), nifti)
  readers = {
    'read_ct': lambda: _read_ct(plain),
    'SimpleITK': lambda: _simpleitk(plain),
    'dicom2nifti': lambda: _dicom2nifti(plain, folder / 'out.nii'),
    'read_ct, half the slices': lambda: _read_ct(half),
    'read_ct, JPEG lossless': lambda: _read_ct(jpeg),
    'SimpleITK, JPEG lossless': lambda: _simpleitk(jpeg),
    'read_ct, NIfTI': lambda: _read_ct(nifti),
    'from_array': lambda: _from_array(volume),
    'from_sitk': lambda: type(volume).from_sitk(image),
  }
  _read_ct(plain), _read_ct(half), _read_ct(jpeg)
  clock = time.process_time if args.cpu else time.perf_counter
  seconds = {name: [] for name in readers}
  for _ in range(args.rounds):
    for name, read in readers.items():
      start = clock()
      read()
      seconds[name].append(clock() - start)
  best = {name: min(times) for name, times in seconds.items()}
  listing = write_listing(folder / 'many', args.files)
  return {
    'simpleitk_ratio': best['read_ct'] / best['SimpleITK'],
    'simpleitk_ratio_jpeg': (
      best['read_ct, JPEG lossless'] / best['SimpleITK, JPEG lossless']
    ),
    'dicom2nifti_ratio': best['read_ct'] / best['dicom2nifti'],
    'from_array_ratio': best['from_array'] / best['read_ct, NIfTI'],
    'from_sitk_ratio': best['from_sitk'] / best['read_ct, NIfTI'],
    'memory_ratio': max(memory_ratio(plain), memory_ratio(jpeg)),
    'growth_ratio': (best['read_ct'] / args.slices)
    / (best['read_ct, half the slices'] / (args.slices // 2)),
    'listing_seconds': _seconds_of_listing(listing, clock),
    'seconds': best,
  }


def write_series(
  folder: pathlib.Path, count: int, size: int = _SIZE, series: int = 1
) -> pathlib.Path:
  """A CT series whose headers are as long as a scanner's, some 15 kB."""
  if (folder / f'{series}-{count - 1:05d}.dcm').exists():
    return folder
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(series)
  y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
  body = np.where(x * x + 1.8 * y * y < 0.8, 40, -1000)
  body[(np.abs(x) - 0.4) ** 2 + y * y < 0.08] = -850
  ds = _header(series, size)
  for index in range(count):
    noise = rng.normal(0, 15, (size, size))
    stored = np.clip(body + noise + 1024, 0, 4095).astype('<u2')
    ds.SOPInstanceUID = f'1.2.826.0.1.3680043.10.511.{series}.{index + 1}'
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.InstanceNumber = index + 1
    ds.ImagePositionPatient = [-180.0, -180.0, -300 + 1.25 * index]
    ds.PixelData = stored.tobytes()
    ds.save_as(folder / f'{series}-{index:05d}.dcm', enforce_file_format=True)
  return folder


def _header(series: int, size: int) -> pydicom.Dataset:
  ds = dataset.Dataset()
  ds.file_meta = dataset.FileMetaDataset()
  ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  ds.SOPClassUID = uid.CTImageStorage
  ds.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL']
  ds.Modality, ds.PatientID, ds.RescaleType = 'CT', 'BENCHMARK', 'HU'
  ds.StudyInstanceUID = '1.2.826.0.1.3680043.10.511.9'
  ds.SeriesInstanceUID = f'1.2.826.0.1.3680043.10.511.8.{series}'
  ds.FrameOfReferenceUID = '1.2.826.0.1.3680043.10.511.7'
  ds.ConvolutionKernel, ds.SliceThickness = 'B40f', 1.25
  ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
  ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
  ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, 'MONOCHROME2'
  ds.Rows = ds.Columns = size
  ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
  for group in _PRIVATE_GROUPS:
    block = ds.private_block(group, 'BENCHMARK', create=True)
    for element in range(25):
      block.add_new(element, 'DS' if element % 3 else 'LO', '123.456')
    block.add_new(0x80, 'OB', bytes(1000))
  code = dataset.Dataset()
  code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = '1', 'DCM', 'CT'
  ds.ProcedureCodeSequence = sequence.Sequence([code] * 3)
  return ds


def compress(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
  """The same series as JPEG lossless, first-order prediction."""
  target.mkdir(exist_ok=True)
  syntax = gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1)
  for path in sorted(source.iterdir()):
    if (target / path.name).exists():
      continue
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    change = gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(path))
    reader.Read()
    change.SetTransferSyntax(syntax)
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target / path.name))
    writer.Write()
  return target


def write_listing(folder: pathlib.Path, count: int) -> pathlib.Path:
  """Many small files of 20 series in one folder."""
  for series in range(_SERIES_IN_LISTING):
    write_series(folder, count // _SERIES_IN_LISTING, size=16, series=series + 1)
  return folder


def _read_ct(folder):
  from covid_tf import readers

  return readers.read_ct(folder)


def _from_array(volume):
  return type(volume).from_array(
    volume.hu, spacing_mm=volume.spacing_mm, orientation='LPS'
  )


def _simpleitk(folder):
  import SimpleITK as sitk

  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
  return sitk.GetArrayFromImage(reader.Execute())


def _dicom2nifti(folder, target):
  from dicom2nifti import convert_dicom

  return convert_dicom.dicom_series_to_nifti(folder, target, reorient_nifti=False)


def _seconds_of_listing(folder, clock) -> float:
  from covid_tf import readers

  start = clock()
  listed = readers.list_series(folder)
  assert len(listed) == _SERIES_IN_LISTING
  return clock() - start


def memory_ratio(folder) -> float:
  """Measured in a process of its own, by the kernel's high-water mark."""
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    return pool.apply(_memory_ratio, (folder,))


def _memory_ratio(folder) -> float:
  from covid_tf import readers

  readers.list_series(folder)  # Imports and caches are there before.
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # Forget the peak so far.
  before = _status_kib('VmRSS')
  volume = readers.read_ct(folder)
  return (_status_kib('VmHWM') - before) * 1024 / volume.hu.nbytes


def _status_kib(field: str) -> int:
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(field):
      return int(line.split()[1])
  raise ValueError(f'the kernel does not report {field}')


def _table(figures: dict) -> str:
  lines = [f'{name:28}{seconds:9.3f} s' for name, seconds in figures['seconds'].items()]
  lines += [
    f'{name:28}{value:9.3f}' for name, value in figures.items() if name != 'seconds'
  ]
  return '\n'.join(lines)


if __name__ == '__main__':
  with streams.safe_streams():
    main()

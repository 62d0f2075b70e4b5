"""Programs that are not ours: what they say of DICOM objects, and where voxels lie."""

import os
import pathlib
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from covid_tf import volume as volume_lib


def _program(name: str) -> str:
  found = shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))
  if not found:
    pytest.skip(f'no {name} on this machine; tools/test.sh installs it')
  return found


def errors_of(path: pathlib.Path) -> list[str]:
  """Lines of dciodvfy (dicom3tools) that report an error; skips where it is missing."""
  done = subprocess.run(
    [_program('dciodvfy'), str(path)], capture_output=True, text=True, check=False
  )
  lines = (done.stdout + done.stderr).splitlines()
  assert lines, 'it says at least the kind of the object'
  return [line for line in lines if line.startswith(('Error', 'Abort'))]


_PIXELMED = pathlib.Path('/usr/share/java/pixelmed.jar')
# XPath's limits are below what the rules for structured reports take.
_NO_LIMITS = tuple(
  f'-Djdk.xml.xpath{what}Limit=0' for what in ('TotalOp', 'ExprOp', 'ExprGrp')
)


def findings_in_report(path: pathlib.Path) -> list[str]:
  """What PixelMed's validator of structured reports says, but for its warnings."""
  if not _PIXELMED.exists():
    pytest.skip('no pixelmed-apps on this machine; tools/test.sh installs them')
  validator = 'com.pixelmed.validate.DicomSRValidator'
  done = subprocess.run(
    [_program('java'), *_NO_LIMITS, '-cp', str(_PIXELMED), validator, str(path)],
    capture_output=True,
    text=True,
    check=False,
  )
  lines = (done.stdout + done.stderr).splitlines()
  return [line for line in lines if not line.startswith('Warning')]


def segments(
  path: pathlib.Path, folder: pathlib.Path
) -> list[tuple[np.ndarray, np.ndarray]]:
  """The segments of a segmentation as dcmqi reads them.

  Returns:
    For each ([slice, row, column], float64 [4, 4] of the index to LPS millimetres).
  """
  return _converted('segimage2itkimage', path, folder)


def parametric_map(
  path: pathlib.Path, folder: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
  """A parametric map as dcmqi reads it, as of `segments`."""
  (one,) = _converted('paramap2itkimage', path, folder)
  return one


def _converted(program, path, folder):
  folder.mkdir()
  command = [_program(program), '--inputDICOM', path, '--outputDirectory', folder]
  done = subprocess.run(
    [*map(str, command), '-t', 'nifti'], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr
  files = sorted(folder.glob('*.nii.gz'))
  return [_read(file) for file in files]


def _read(path):
  image = nib.load(path)
  affine = (volume_lib.LPS_RAS @ image.affine)[:, [2, 1, 0, 3]]
  return np.asarray(image.dataobj).T, affine


def values_at(
  stored: np.ndarray, affine: np.ndarray, points_mm: np.ndarray
) -> tuple[np.ndarray, float]:
  """The voxels at some places, and how far the furthest voxel's centre is off.

  Args:
    stored, affine: as of `segments`.
    points_mm: [..., 3], LPS.

  Returns:
    ([...], millimetres).
  """
  index = (points_mm - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
  nearest = np.rint(index).astype(int)
  assert (nearest >= 0).all() and (nearest < stored.shape).all()
  off = np.linalg.norm((index - nearest) @ affine[:3, :3].T, axis=-1).max()
  return stored[tuple(np.moveaxis(nearest, -1, 0))], float(off)

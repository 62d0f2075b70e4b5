"""Validators of DICOM objects that are not ours; a test skips where one is missing."""

import pathlib
import shutil
import subprocess

import pytest

_JAR = pathlib.Path('/usr/share/java/pixelmed.jar')
# XPath's limits are below what the rules for structured reports take.
_NO_LIMITS = tuple(
  f'-Djdk.xml.xpath{what}Limit=0' for what in ('TotalOp', 'ExprOp', 'ExprGrp')
)


def object_errors(path: pathlib.Path) -> list[str]:
  """What dciodvfy (Debian's dicom3tools) calls an error."""
  if not shutil.which('dciodvfy'):
    pytest.skip('dciodvfy is not installed (Debian: dicom3tools)')
  lines = _output('dciodvfy', str(path)).splitlines()
  assert any(not line.startswith(('Error', 'Warning')) for line in lines), lines
  return [line for line in lines if line.startswith(('Error', 'Abort'))]


def report_findings(path: pathlib.Path) -> list[str]:
  """What PixelMed's validator of structured reports says, its warnings left out."""
  if not (shutil.which('java') and _JAR.exists()):
    pytest.skip("PixelMed's validator is not installed (Debian: pixelmed-apps)")
  validator = 'com.pixelmed.validate.DicomSRValidator'
  output = _output('java', *_NO_LIMITS, '-cp', str(_JAR), validator, str(path))
  return [line for line in output.splitlines() if not line.startswith('Warning')]


def _output(*command: str) -> str:
  done = subprocess.run(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    encoding='utf-8',
    errors='replace',
    timeout=500,
  )
  return done.stdout

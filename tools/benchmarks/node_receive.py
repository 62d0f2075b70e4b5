"""A study of 300 slices received: the node's listener, and dcmtk's storescp with fsync.

Both are sent the same files by dcmtk's storescu, in turns, into empty folders of one
file system. storescp does not force anything to the disk, so the fsyncs of the files
that it wrote are timed and added: that is what an acknowledgement would have to wait
for.
"""

import argparse
from collections.abc import Callable
import contextlib
import logging
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

import numpy as np
from pydicom import dataset as pydicom_dataset
from pydicom import uid as pydicom_uid

from covid_tf import streams
from covid_tf.datasets.phantom import written
from covid_tf.node import listener
from covid_tf.node import metrics
from covid_tf.node import spool

_TITLE = 'COVIDTF'
_START_S = 60.0


def why_missing() -> str | None:
  """Why nothing can be compared here; None where it can."""
  missing = [name for name in ('storescu', 'storescp') if _dcmtk(name) is None]
  return f'no {" and ".join(missing)}: install dcmtk' if missing else None


def run(root: pathlib.Path, slices: int, rows: int, rounds: int) -> dict[str, float]:
  """Receives the study in turns.

  Args:
    root: an empty folder, on the disk in question.
    slices, rows: of the study; as many columns.
    rounds: of each.

  Returns:
    `listener_s`, `storescp_s`, `fsync_s` (medians), `storescp_fsync_s` of both, and
    `receive_ratio`, of the medians.
  """
  source = _write_study(root / 'in', slices, rows)
  seconds: dict[str, list[float]] = {'listener': [], 'storescp': [], 'fsync': []}
  for _ in range(rounds):
    seconds['listener'].append(_received(_listener, source, root, slices))
    seconds['storescp'].append(
      _received(
        _storescp,
        source,
        root,
        slices,
        lambda folder: seconds['fsync'].append(_fsync(folder)),
      )
    )
  both = [
    one + other
    for one, other in zip(seconds['storescp'], seconds['fsync'], strict=True)
  ]
  figures = {f'{name}_s': statistics.median(values) for name, values in seconds.items()}
  figures['storescp_fsync_s'] = statistics.median(both)
  figures['receive_ratio'] = figures['listener_s'] / figures['storescp_fsync_s']
  return figures


def _write_study(folder: pathlib.Path, slices: int, rows: int) -> pathlib.Path:
  """A CT series of noise: nothing here looks into a pixel."""
  folder.mkdir(parents=True)
  chance = np.random.default_rng(0)
  header = pydicom_dataset.Dataset()
  header.SOPClassUID = pydicom_uid.CTImageStorage
  header.Modality, header.PatientID, header.PatientName = 'CT', 'NOISE', 'NOISE'
  header.StudyInstanceUID = written.make_uid('receive', 'study')
  header.SeriesInstanceUID = written.make_uid('receive', 'series')
  header.SamplesPerPixel, header.PhotometricInterpretation = 1, 'MONOCHROME2'
  header.Rows = header.Columns = rows
  header.BitsAllocated = header.BitsStored = 16
  header.HighBit, header.PixelRepresentation = 15, 1
  for index in range(slices):
    header.SOPInstanceUID = written.make_uid('receive', index)
    header.InstanceNumber = index + 1
    header.PixelData = chance.integers(-1000, 400, (rows, rows), np.int16).tobytes()
    header.file_meta = pydicom_dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom_uid.ExplicitVRLittleEndian
    header.save_as(folder / f'{index:04d}.dcm', enforce_file_format=True)
  return folder


def _received(
  start: Callable[[pathlib.Path, int], list[object]],
  source: pathlib.Path,
  root: pathlib.Path,
  slices: int,
  then: Callable[[pathlib.Path], None] | None = None,
) -> float:
  """Seconds that storescu took to send the study to a server."""
  folder, port = root / 'out', free_port()
  folder.mkdir()
  server = subprocess.Popen(
    start(folder, port), stdout=subprocess.DEVNULL, env=_environment()
  )
  try:
    _wait_for(port, server)
    begin = time.perf_counter()
    subprocess.run(
      [_dcmtk('storescu'), '-aec', _TITLE, '127.0.0.1', str(port), '+sd', source],
      check=True,
      capture_output=True,
      env=_environment(),
    )
    taken = time.perf_counter() - begin
    if then:
      then(folder)
  finally:
    server.terminate()
    server.wait()
  found = sum(path.stat().st_size > 100 for path in _images(folder))
  shutil.rmtree(folder)
  if found != slices:
    raise SystemExit(f'{slices} files are required, found {found}')
  return taken


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
  return [
    path
    for path in folder.rglob('*')
    if path.is_file() and not any(part.startswith('.') for part in path.parts)
  ]


def _fsync(folder: pathlib.Path) -> float:
  """Seconds for an fsync of each file, one after the other."""
  begin = time.perf_counter()
  for path in sorted(_images(folder)):
    with open(path, 'rb+') as file:
      os.fsync(file.fileno())
  return time.perf_counter() - begin


def _storescp(folder: pathlib.Path, port: int) -> list[object]:
  return [_dcmtk('storescp'), '-aet', _TITLE, '-od', folder, str(port)]


def _listener(folder: pathlib.Path, port: int) -> list[object]:
  return [sys.executable, __file__, str(folder), str(port)]


def _environment() -> dict[str, str]:
  # dcmtk as Debian builds it waits 40 ms for each answer, by Nagle's algorithm and
  # delayed acknowledgements, unless it is told otherwise: 14 s for 300 slices.
  path = os.pathsep.join(filter(None, sys.path))
  return os.environ | {'PYTHONPATH': path, 'TCP_NODELAY': '1'}


def _dcmtk(name: str) -> str | None:
  """dcmtk's program: pynetdicom puts scripts of the same names beside its Python."""
  here = pathlib.Path(sys.executable).parent
  folders = [
    folder
    for folder in os.environ.get('PATH', '').split(os.pathsep)
    if folder and pathlib.Path(folder) != here
  ]
  return shutil.which(name, path=os.pathsep.join(folders))


def free_port() -> int:
  """A port of loopback that nobody listens at, also while a node is away.

  Below those that systems give to outgoing connections, from 16000 or 32768 on.
  """
  for port in random.sample(range(10_000, 16_000), 100):
    with contextlib.suppress(OSError), socket.socket() as found:
      found.bind(('127.0.0.1', port))
      return port
  raise SystemExit('no port from 10000 to 15999 is free')


def _wait_for(port: int, server: subprocess.Popen) -> None:
  end = time.monotonic() + _START_S
  while time.monotonic() < end and server.poll() is None:
    with contextlib.suppress(OSError):
      socket.create_connection(('127.0.0.1', port), 1).close()
      return
    time.sleep(0.05)
  raise SystemExit(f'{server.args[0]} does not listen')


def _listen(folder: pathlib.Path, port: int) -> None:
  """The node's listener and spool alone, until SIGTERM."""
  kept = spool.Spool(folder)
  with listener.Listener(
    listener.Settings(_TITLE, port), kept, lambda: None, metrics.Metrics()
  ):
    signal.pause()


if __name__ == '__main__':
  with streams.safe_streams():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=pathlib.Path, help='gets the spool')
    parser.add_argument('port', type=int)
    arguments = parser.parse_args()
    logging.disable()  # Of the connection that asks whether it listens.
    _listen(arguments.folder, arguments.port)

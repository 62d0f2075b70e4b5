"""Orthanc, a small PACS, for tests: in a network of its own, gone with the test.

Its ports listen on every address of the machine, so it runs in a network namespace that
has nothing but a loopback. Whoever starts it here is in that namespace until the block
ends, with all threads and processes started meanwhile: `localhost` is Orthanc's.

Needs Linux, root's right to make a namespace, and Debian's packages `orthanc` and
`orthanc-dicomweb`.
"""

import base64
from collections.abc import Iterator, Mapping
import contextlib
import ctypes
import dataclasses
import fcntl
import glob
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request

import pytest

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of linux/sched.h.
_SET_INTERFACE_FLAGS = 0x8914  # SIOCSIFFLAGS of linux/sockios.h.
_UP_AND_RUNNING = 0x41  # IFF_UP | IFF_RUNNING of linux/if.h.
_START_S = 180.0
_PLUGINS = '/usr/lib/orthanc/libOrthancDicomWeb.so*'


@dataclasses.dataclass(frozen=True)
class Orthanc:
  """Where a running Orthanc is.

  Attributes:
    aet: its AE title.
    dicom_port: its port for DIMSE.
    url: its own REST interface, for what a test wants to know.
    dicom_web: its DICOMweb root.
    own_aet: an AE title that it sends to (C-MOVE, storage commitment) ...
    own_port: ... at this port of localhost.
    log: what it wrote.
    user: (name, password) for its REST interface, or None.
  """

  aet: str
  dicom_port: int
  url: str
  dicom_web: str
  own_aet: str
  own_port: int
  log: pathlib.Path
  user: tuple[str, str] | None = None

  @property
  def address(self) -> str:
    """As `covid-tf send --to` takes it."""
    return f'{self.aet}@localhost:{self.dicom_port}'

  def ask(self, path: str, method: str = 'GET', body: object = None):
    """The JSON that its REST interface answers to a path."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(self.url + path, data, method=method)
    if self.user:
      coded = base64.b64encode(':'.join(self.user).encode()).decode()
      request.add_header('Authorization', f'Basic {coded}')
    with urllib.request.urlopen(request, timeout=180) as answer:
      return json.load(answer)

  def clear(self) -> None:
    """Deletes all that is stored."""
    for patient in self.ask('/patients'):
      self.ask(f'/patients/{patient}', 'DELETE')


def why_missing() -> str | None:
  """Why no Orthanc can be started here, in one line; None where it can."""
  if program() is None or not glob.glob(_PLUGINS):
    return 'no Orthanc: install the Debian packages orthanc and orthanc-dicomweb'
  try:
    with network():
      return None
  except OSError as error:
    return f'no network namespace can be made here: {error.strerror}'


@contextlib.contextmanager
def started(
  folder: pathlib.Path,
  *,
  second: bool = False,
  user: tuple[str, str] | None = None,
  environment: Mapping[str, str] | None = None,
  **settings,
) -> Iterator[Orthanc]:
  """Yields an empty Orthanc that keeps its files in a folder; skips where it cannot.

  Args:
    folder: a new or empty one.
    second: whether it starts beside one that is running, in the same network, with
      another title and ports.
    user: (name, password) by which its REST interface is asked.
    environment: variables that it gets besides those of this process.
    **settings: of its configuration, in the place of those below.
  """
  if reason := why_missing():
    pytest.skip(reason)
  folder.mkdir(parents=True, exist_ok=True)
  web = f'http://localhost:{8043 if second else 8042}'
  server = Orthanc(
    'SECOND' if second else 'ORTHANC',
    4243 if second else 4242,
    web,
    f'{web}/dicom-web',
    'COVIDTF',
    11112,
    folder / 'log.txt',
    user,
  )
  configuration = folder / 'orthanc.json'
  content = {**_configuration(server, folder), **settings}
  configuration.write_text(json.dumps(content), 'utf-8')
  place = contextlib.nullcontext() if second else network()
  with place, open(server.log, 'wb') as log:
    process = subprocess.Popen(
      [program(), configuration],
      stdout=log,
      stderr=log,
      cwd=folder,
      env=os.environ | dict(environment or {}),
    )
    try:
      _wait_for(server, process)
      yield server
    finally:
      process.terminate()
      try:
        process.wait(20)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def network() -> Iterator[None]:
  """In the block this thread, and what it starts, has a network of its own.

  Raises:
    OSError: the system does not allow it.
  """
  libc = ctypes.CDLL(None, use_errno=True)
  outside = os.open('/proc/thread-self/ns/net', os.O_RDONLY)
  try:
    _require(libc.unshare(_NEW_NETWORK))
    try:
      with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack('16sh14x', b'lo', _UP_AND_RUNNING)
        fcntl.ioctl(control, _SET_INTERFACE_FLAGS, request)
      yield
    finally:
      _require(libc.setns(outside, _NEW_NETWORK))
  finally:
    os.close(outside)


def _require(status: int) -> None:
  if status:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def program() -> str | None:
  """Where Orthanc's program lies; None where it is not installed."""
  return shutil.which('Orthanc', path=f'{os.environ.get("PATH", "")}:/usr/sbin')


def _configuration(server: Orthanc, folder: pathlib.Path) -> dict:
  return {
    'StorageDirectory': str(folder / 'storage'),
    'IndexDirectory': str(folder / 'storage'),
    'Plugins': sorted(glob.glob(_PLUGINS))[:1],
    'HttpPort': int(server.url.rpartition(':')[2]),
    'DicomPort': server.dicom_port,
    'DicomAet': server.aet,
    'AuthenticationEnabled': False,
    'RemoteAccessAllowed': True,
    'DicomCheckCalledAet': False,
    'DicomAlwaysAllowEcho': True,
    'DicomAlwaysAllowStore': True,
    'DicomAlwaysAllowFind': True,
    'DicomAlwaysAllowGet': True,
    'DicomAlwaysAllowMove': True,
    'DicomModalities': {'own': [server.own_aet, 'localhost', server.own_port]},
  }


def _wait_for(server: Orthanc, process: subprocess.Popen) -> None:
  """Returns when both ports answer."""
  end = time.monotonic() + _START_S
  while time.monotonic() < end:
    if process.poll() is not None:
      break
    try:
      server.ask('/system')
      socket.create_connection(('localhost', server.dicom_port), 5).close()
      return
    except (OSError, urllib.error.URLError):
      time.sleep(0.1)
  raise AssertionError(
    f'Orthanc did not start: {server.log.read_text("utf-8")[-2000:]}'
  )

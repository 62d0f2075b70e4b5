"""`covid-tf node` as a process of its own, with models that only compute on HU.

  python tests/support/running_node.py FOLDER node …

runs the command line with them. Each study that asks them leaves a line in
FOLDER/asked; FOLDER/away makes them fail, FOLDER/slow wait until it has gone.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import batch_archive
import fake_models
import free_ports
import psutil
import pydicom

from covid_tf import cli
from covid_tf import errors
from covid_tf.batch import records
from covid_tf.clinic import requesting
from covid_tf.commands import archive_scorer

_PATIENCE_S = 120.0


@dataclasses.dataclass(frozen=True)
class _Open:
  """Opens the models in any process; hashable."""

  folder: str

  def __call__(self, server: str):
    del server
    return contextlib.nullcontext(_Models(pathlib.Path(self.folder)))


class _Models(fake_models.FakeModels):
  def __init__(self, folder: pathlib.Path):
    super().__init__()
    self._folder = folder

  def grad_cam(self, hu):
    with open(self._folder / 'asked', 'a', encoding='ascii') as file:
      print(len(hu), file=file)
    if (self._folder / 'away').exists():
      raise errors.ModelError('the model server is away')
    while (self._folder / 'slow').exists():
      time.sleep(0.05)
    return super().grad_cam(hu)


def main(folder: str, *arguments: str) -> int:
  """Runs the command line; the models are those of this module."""

  def make_scorer(flags, ask, dicom):
    del ask
    if pathlib.Path(folder, 'away').exists():
      raise errors.ModelError('the model server is away')
    scorer = batch_archive.make_scorer(flags.output)
    configuration = dataclasses.replace(scorer.configuration, dicom=dicom)
    return dataclasses.replace(
      scorer, open_models=_Open(folder), configuration=configuration
    )

  archive_scorer.make_scorer = make_scorer
  return cli.main(list(arguments))


class Node:
  """A node that may be killed and started again; a context manager.

  Attributes:
    folder: of everything; `out` in it is its output.
    port, health_port: where it listens.
  """

  def __init__(self, folder: pathlib.Path, *flags: str, settle_s: float = 0.5):
    self.folder = folder
    self.output = folder / 'out'
    self.port = free_ports.free_port()
    self.health_port = free_ports.free_port()
    self._flags = [
      *('node', '--no-config', '--verbose', '--processes', '1'),
      *('--output', str(self.output), '--settle', str(settle_s), '--reserve', '0'),
      *('--port', str(self.port), '--health-port', str(self.health_port)),
      *flags,
    ]
    self._process: subprocess.Popen | None = None

  def __enter__(self) -> 'Node':
    self.start()
    return self

  def __exit__(self, *exception) -> None:
    self.kill()

  def start(self) -> None:
    """Starts it, and waits until it listens."""
    with open(self.folder / 'log', 'ab') as log:
      self._process = subprocess.Popen(
        [sys.executable, __file__, str(self.folder), *self._flags],
        stdout=log,
        stderr=log,
        env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
      )
    self.wait_for(lambda: self.alive() or None)

  def kill(self) -> None:
    """SIGKILL; returns when its workers, which notice it, have ended too."""
    workers = []
    with contextlib.suppress(psutil.NoSuchProcess):
      workers = psutil.Process(self._process.pid).children(recursive=True)
    self._process.kill()
    self._process.wait()
    until = time.monotonic() + _PATIENCE_S
    while not all(map(_has_ended, workers)) and time.monotonic() < until:
      time.sleep(0.02)

  def stop(self) -> int:
    """SIGTERM; returns the exit status."""
    self._process.send_signal(signal.SIGTERM)
    return self._process.wait(_PATIENCE_S)

  def run(self, *flags: str) -> subprocess.CompletedProcess:
    """The same command once more, with further flags."""
    return subprocess.run(
      [sys.executable, __file__, str(self.folder), *self._flags, *flags],
      capture_output=True,
      text=True,
      env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
      check=False,
    )

  def alive(self) -> bool:
    """Whether it answers at its health port."""
    with contextlib.suppress(OSError):
      return self.ask('/healthz')['alive']
    return False

  def ask(self, path: str):
    """What its health port answers, as JSON; of 503 too."""
    url = f'http://127.0.0.1:{self.health_port}{path}'
    try:
      with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)
    except urllib.error.HTTPError as error:
      return json.load(error)

  def told(self, state: str, uid: str) -> str | None:
    """Why a study is in a state; None where it is not."""
    return self.ask('/studies')[state].get(uid)

  @property
  def log(self) -> str:
    return (self.folder / 'log').read_text('utf-8', 'replace')

  @property
  def asked(self) -> list[str]:
    """A line for each time that a study asked the models."""
    path = self.folder / 'asked'
    return path.read_text('ascii').split() if path.exists() else []

  def record(self, uid: str) -> records.Record | None:
    return records.read_record(records.studies_folder(self.output) / uid)

  def scored(self, uid: str, slices: int | None = None) -> records.Record:
    """Waits for the score of a study, of so many slices."""

    def found():
      record = self.record(uid)
      fits = record and record.status == records.SCORED
      return record if fits and slices in (None, record.slice_count) else None

    return self.wait_for(found)

  def wait_for(self, what):
    """What a function returns, once that is not None."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
      if (found := what()) is not None:
        return found
      if self._process.poll() is not None:
        raise AssertionError(f'the node ended:\n{self.log[-3000:]}')
      time.sleep(0.05)
    raise AssertionError(f'waited in vain:\n{self.log[-3000:]}')


def _has_ended(process: psutil.Process) -> bool:
  """Whether a process is gone, or only its exit status is left."""
  try:
    return process.status() == psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return True


def send(
  port: int,
  datasets,
  *,
  abort_after: int | None = None,
  caller: str = 'SENDER',
  called: str = 'COVIDTF',
) -> list[int]:
  """Sends data sets in one association; returns the statuses, released or aborted."""
  entity = requesting.AE(caller)
  for uid, syntax in sorted(
    {(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in datasets}
  ):
    entity.add_requested_context(uid, syntax)
  association = entity.associate('127.0.0.1', port, ae_title=called)
  if not association.is_established:
    return []
  statuses = []
  for number, dataset in enumerate(datasets):
    if number == abort_after:
      association.abort()
      return statuses
    statuses.append(association.send_c_store(dataset).Status)
  association.release()
  return statuses


def study(folder: pathlib.Path, number: int) -> list[pydicom.Dataset]:
  """The slices of a made-up patient that can be scored, in order."""
  paths = batch_archive.write_study(folder, number).iterdir()
  found = [pydicom.dcmread(path) for path in paths]
  return sorted(found, key=lambda dataset: dataset.InstanceNumber)


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))

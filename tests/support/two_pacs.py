"""A node between two Orthancs: studies come from one, objects go to the other.

All in a network of its own (see `orthanc`). The node is a process as an operator
starts it.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import orthanc
import pydicom

from covid_tf import cli
from covid_tf import clinic
from covid_tf.clinic import sending
from covid_tf.storage import result_json
from covid_tf.storage.dicom import measurement_groups

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_START_S = 300.0


@dataclasses.dataclass
class Between:
  """What is running.

  Attributes:
    source: studies come from here.
    destination: objects go here.
    output: folder of the node.
    process: the node.
    log: its output.
    model_flags: the flags by which it has its models.
  """

  source: orthanc.Orthanc
  destination: orthanc.Orthanc
  output: pathlib.Path
  process: subprocess.Popen
  log: pathlib.Path
  model_flags: tuple[str, ...] = ()

  def give(self, study: pathlib.Path) -> str:
    """Stores a study at the source; returns its Study Instance UID."""
    instances = sending.read_instances(study)
    sent = sending.send(instances, clinic.connect(self.source.address))
    assert sent.is_complete
    return instances[0].study_uid

  def route(self, study_uid: str) -> None:
    """Makes the source send a study to the node, in one association."""
    query = {'Level': 'Study', 'Query': {'StudyInstanceUID': study_uid}}
    (resource,) = self.source.ask('/tools/find', 'POST', query)
    order = {'Resources': [resource], 'Synchronous': True, 'Timeout': 600}
    done = self.source.ask('/modalities/own/store', 'POST', order)
    assert done['FailedInstancesCount'] == 0, done

  def reports(self) -> dict[str, dict]:
    """Study UID to what Orthanc says of its structured reports at the destination."""
    query = {'Level': 'Series', 'Query': {'Modality': 'SR'}, 'Expand': True}
    return {
      self.destination.ask(f'/series/{series["ID"]}/study')['MainDicomTags'][
        'StudyInstanceUID'
      ]: series
      for series in self.destination.ask('/tools/find', 'POST', query)
    }

  def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
    """Until something is so; fails where the node ends or it takes longer."""
    end = time.monotonic() + seconds
    while not condition():
      assert self.process.poll() is None, self.log.read_text('utf-8')[-2000:]
      assert time.monotonic() < end, self.log.read_text('utf-8')[-2000:]
      time.sleep(0.25)


@contextlib.contextmanager
def started(
  folder: pathlib.Path,
  *flags: str,
  serve: Callable[[], contextlib.AbstractContextManager[str]] | None = None,
) -> Iterator[Between]:
  """Yields Orthancs and a node, which must end well at the end.

  Args:
    folder: of all that is written.
    *flags: of `covid-tf node`, besides those of addresses.
    serve: starts a model server in the same network and gives its address; None: the
      node uses the demo models.
  """
  with (
    orthanc.started(folder / 'source') as source,
    orthanc.started(folder / 'destination', second=True) as destination,
    serve() if serve else contextlib.nullcontext() as server,
  ):
    model_flags = (f'--server={server}',) if server else ()
    log, output = folder / 'node.log', folder / 'node'
    command = [
      *(sys.executable, '-m', 'covid_tf.cli', 'node', f'--output={output}'),
      *(f'--aet={source.own_aet}', f'--port={source.own_port}'),
      *(f'--callers={source.aet}', f'--source-pacs={source.address}'),
      *(f'--to={destination.address}', *model_flags, *flags),
    ]
    path = os.pathsep.join(filter(None, [str(_ROOT), *sys.path]))
    with open(log, 'wb') as stream:
      process = subprocess.Popen(
        command, stdout=stream, stderr=stream, env=os.environ | {'PYTHONPATH': path}
      )
    between = Between(source, destination, output, process, log, model_flags)
    try:
      between.wait_for(lambda: _listens(source.own_port), _START_S)
      yield between
      process.send_signal(signal.SIGTERM)
      assert process.wait(300) == 0, log.read_text('utf-8')[-2000:]
    finally:
      process.kill()
      process.wait()


def _listens(port: int) -> bool:
  with contextlib.suppress(OSError):
    socket.create_connection(('localhost', port), 1).close()
    return True
  return False


@dataclasses.dataclass(frozen=True)
class Numbers:
  """What one way of scoring a study came to.

  Attributes:
    corona_score_cm3, lung_volume_cm3: of result.json.
    measurements: all of the structured report.
  """

  corona_score_cm3: float
  lung_volume_cm3: float
  measurements: dict[str, dict[str, float]]


def numbers_of_node(between: Between, study_uid: str, folder: pathlib.Path) -> Numbers:
  """Of a study that the node scored; the report as the destination gives it back."""
  words = ['fetch', study_uid, '--from', between.destination.address]
  assert cli.main([*words, '--output', str(folder)]) == 0
  (report,) = (path for path in folder.rglob('*.dcm') if _is_report(path))
  (result,) = between.output.glob(f'studies/{study_uid}*/{result_json.FILE_NAME}')
  return _numbers(result, report)


def numbers_of_score(
  between: Between, study: pathlib.Path, folder: pathlib.Path
) -> Numbers:
  """Of the same study, and models, by `covid-tf score`."""
  words = ['score', str(study), '--output', str(folder), '--dicom']
  words += between.model_flags
  assert cli.main(words) == 0
  return _numbers(folder / result_json.FILE_NAME, folder / 'dicom' / 'report.dcm')


def _is_report(path: pathlib.Path) -> bool:
  return pydicom.dcmread(path, stop_before_pixels=True).Modality == 'SR'


def _numbers(result: pathlib.Path, report: pathlib.Path) -> Numbers:
  content = json.loads(result.read_text('utf-8'))
  return Numbers(
    content['corona_score_cm3'],
    content['lung_volume_cm3'],
    measurement_groups.read_measurements(report),
  )

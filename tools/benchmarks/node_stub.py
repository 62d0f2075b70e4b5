"""A node as an operator starts it, but for its models, which only take their time.

What it scores to the end it notes beside its output, one line a study, so that a
study that is scored a second time shows.
"""

import argparse
import dataclasses
import logging
import os
import pathlib
import signal
import sys
import threading

import batch_stub

from covid_tf import clinic
from covid_tf import streams
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.batch import scoring
from covid_tf.clinic import pacs
from covid_tf.node import completeness
from covid_tf.node import listener
from covid_tf.node import service
from covid_tf.storage.dicom import objects

ENDS_FILE = 'scored.txt'
# Of one attempt: the node itself repeats.
_LIMITS = pacs.Limits(5.0, 20.0, 60.0, 1)


@dataclasses.dataclass(frozen=True)
class NotingScorer(scoring.Scorer):
  """Notes each study that it scores to the end, by its images."""

  def __call__(self, study: listing.Study) -> records.Record:
    """Scores one study; see `scoring.Scorer`."""
    before = records.read_record(records.studies_folder(self.output) / study.key)
    record = super().__call__(study)
    if record.status == records.SCORED and record != before:
      path = pathlib.Path(self.output).parent / ENDS_FILE
      line = f'{record.key} {record.fingerprint}\n'.encode()
      descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
      os.write(descriptor, line)
      os.close(descriptor)
    return record


def _scorer(flags: argparse.Namespace) -> NotingScorer:
  plain = batch_stub.make_scorer(
    flags.source, flags.output, flags.lungs_ms, flags.grad_cam_ms
  )
  values = {
    field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)
  }
  values['configuration'] = dataclasses.replace(
    plain.configuration, dicom=objects.Options()
  )
  return NotingScorer(**values)


def main() -> None:
  """Runs until SIGTERM, or SIGKILL."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--source', required=True, help='of batch_stub.write_archive')
  parser.add_argument('--output', required=True)
  parser.add_argument('--port', type=int, required=True)
  parser.add_argument('--to', required=True, help='AET@host:port')
  parser.add_argument('--settle', type=float, required=True, help='seconds')
  parser.add_argument('--lungs_ms', type=float, default=5.0)
  parser.add_argument('--grad_cam_ms', type=float, default=5.0)
  parser.add_argument('--processes', type=int, default=2)
  flags = parser.parse_args()
  logging.basicConfig(
    level=logging.INFO, stream=sys.stderr, format='%(asctime)s %(name)s %(message)s'
  )
  logging.getLogger('pynetdicom').setLevel(logging.CRITICAL + 1)
  node = service.Node(
    service.Settings(
      pathlib.Path(flags.output),
      listener=listener.Settings('COVIDTF', flags.port),
      rules=completeness.Rules(flags.settle),
      processes=flags.processes,
    ),
    lambda: _scorer(flags),
    destination=lambda: clinic.connect(flags.to, limits=_LIMITS),
  )
  reading, writing = os.pipe()

  def wait() -> None:
    os.read(reading, 1)
    node.end()

  # A handler may interrupt code that holds the lock which `end` waits for.
  threading.Thread(target=wait, daemon=True).start()
  signal.signal(signal.SIGTERM, lambda number, frame: os.write(writing, b'.'))
  node.run()


if __name__ == '__main__':
  with streams.safe_streams():
    main()

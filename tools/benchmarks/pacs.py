"""A study to Orthanc and back, by DIMSE and by DICOMweb: seconds.

  python tools/benchmarks/pacs.py                  # 300 slices of 64 x 64
  python tools/benchmarks/pacs.py --slices 30 --rows 512 --json

Orthanc is started in a network namespace of its own (root, and Debian's packages
orthanc and orthanc-dicomweb). Figures, in seconds, `dimse` and `web`:

  ..._send     C-STORE, or STOW-RS, of all slices
  ..._again    the same once more: stored once
  ..._fetch    listed and retrieved: C-FIND and C-GET, or QIDO-RS and WADO-RS
  dimse_move   listed and retrieved by C-FIND and C-MOVE, to a port of ours
  ..._verify   fetched back and compared, each attribute and all pixels
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

_ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / 'tests' / 'support')]

import dicom_series  # noqa: E402
import orthanc  # noqa: E402

from covid_tf import clinic  # noqa: E402
from covid_tf import streams  # noqa: E402
from covid_tf import volume as volume_lib  # noqa: E402
from covid_tf.clinic import addresses  # noqa: E402
from covid_tf.clinic import fetching  # noqa: E402
from covid_tf.clinic import sending  # noqa: E402
from covid_tf.clinic import verifying  # noqa: E402

# Seen before, with 300 slices of 512 x 512: C-STORE, C-GET and WADO-RS.
_BEFORE = {'dimse_send': 19.0, 'dimse_fetch': 2.0, 'web_fetch': 2.0}


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--slices', type=int, default=300)
  parser.add_argument('--rows', type=int, default=64, help='and columns')
  parser.add_argument('--json', action='store_true')
  arguments = parser.parse_args()
  if reason := orthanc.why_missing():
    sys.exit(reason)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    study = _study(folder / 'study', arguments.slices, arguments.rows)
    with orthanc.started(folder / 'orthanc') as server:
      figures = {}
      for kind, address in (('dimse', server.address), ('web', server.dicom_web)):
        server.clear()
        figures |= _figures(kind, address, study, folder / kind)
        if kind == 'dimse':
          figures['dimse_move'] = _moved(server, study, folder / 'moved')
        stored = server.ask('/statistics')['CountInstances']
        assert stored == arguments.slices, stored
  for key, seconds in figures.items():
    before = f'   512 x 512 before: {_BEFORE[key]:g} s' if key in _BEFORE else ''
    print(f'{key:16} {seconds:8.2f} s{before}')
  if arguments.json:
    print(json.dumps(figures))


def _study(folder, slices, rows):
  hu = np.random.default_rng(0).integers(-1000, 400, (slices, rows, rows), np.int16)
  affine = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])
  return dicom_series.write(folder, volume_lib.CTVolume(hu, affine))


def _moved(server, study, output):
  own = addresses.OwnNode(server.own_aet, server.own_port)
  archive = clinic.connect(server.address, own=own, use_move=True)
  uid = sending.read_instances(study)[0].study_uid
  start = time.perf_counter()
  fetching.fetch(archive, uid, output)
  return round(time.perf_counter() - start, 2)


def _figures(kind, address, study, output):
  archive = clinic.connect(address)
  instances = sending.read_instances(study)
  uid = instances[0].study_uid

  def send():
    assert sending.send(instances, archive).is_complete

  steps = {
    'send': send,
    'again': send,
    'fetch': lambda: fetching.fetch(archive, uid, output),
    'verify': lambda: verifying.verify(archive, instances),
  }
  figures = {}
  for name, step in steps.items():
    start = time.perf_counter()
    step()
    figures[f'{kind}_{name}'] = round(time.perf_counter() - start, 2)
  return figures


if __name__ == '__main__':
  with streams.safe_streams():
    main()

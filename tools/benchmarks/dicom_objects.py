"""What DICOM objects cost: seconds beside the analysis' own, and memory.

  python tools/benchmarks/dicom_objects.py                # 300 slices of 1 mm
  python tools/benchmarks/dicom_objects.py --slices 60 --json

A phantom is written as DICOM and scored by the demo models as `covid-tf score` does it,
with slabs. Then its objects are made. Figures:

  seconds_share     seconds of all objects, source headers included / of the study
  processor_share   the same of processor seconds
  megabytes_more    most memory while objects are made, above that before
  …_float32         the same with --dicom-map float32

and the megabytes of each object.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import tempfile
import threading
import time

import analyze
import environment  # noqa: F401  Before TensorFlow.
import psutil

from covid_tf import predictors
from covid_tf import readers
from covid_tf import streams
from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written
from covid_tf.reports import scored_study
from covid_tf.storage.dicom import objects

_MEGABYTE = 1e6
_SAMPLE_S = 0.003


@contextlib.contextmanager
def _watched():
  """Yields a dict that gets seconds, processor seconds and most megabytes more."""
  process = psutil.Process()
  before = most = process.memory_info().rss
  ended = threading.Event()

  def sample():
    nonlocal most
    while not ended.wait(_SAMPLE_S):
      most = max(most, process.memory_info().rss)

  thread = threading.Thread(target=sample)
  thread.start()
  found = {}
  begin, processor_begin = time.perf_counter(), time.process_time()
  try:
    yield found
  finally:
    found['seconds'] = time.perf_counter() - begin
    found['processor_seconds'] = time.process_time() - processor_begin
    ended.set()
    thread.join()
    found['megabytes_more'] = (most - before) / _MEGABYTE


def measure(slices: int, folder: pathlib.Path) -> dict:
  """The figures of one study of so many slices."""
  drawn = phantom.generate(phantom.draw_case(analyze._SEED, 'diffuse', matrix=128))
  drawn = dataclasses.replace(drawn, volume=analyze.study(slices))
  study = written.write_study(drawn, folder / 'study')
  with _watched() as own:
    result = scored_study.score_study(
      study, folder / 'result', predictors.load_models, demo_models=True
    )
  volume = readers.read_ct(study)
  figures = {'slices': slices, 'study_seconds': own['seconds']}
  for map_form in objects.MAP_FORMS:
    with _watched() as found:
      source = objects.read_source_of(study, volume)
      objects.write_objects(
        folder / map_form, result, volume, source, map_form=map_form, pictures=True
      )
    end = '' if map_form == objects.MAP_FORMS[0] else f'_{map_form}'
    figures |= {
      f'seconds{end}': found['seconds'],
      f'seconds_share{end}': found['seconds'] / own['seconds'],
      f'processor_share{end}': found['processor_seconds'] / own['processor_seconds'],
      f'megabytes_more{end}': found['megabytes_more'],
    }
    for path in sorted((folder / map_form / objects.FOLDER).iterdir()):
      figures[f'megabytes_{path.stem}{end}'] = path.stat().st_size / _MEGABYTE
  return figures


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--slices', type=int, default=300)
  parser.add_argument('--json', action='store_true', help='figures on the last line')
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    figures = measure(arguments.slices, pathlib.Path(folder))
  for name, value in figures.items():
    print(f'{name:32} {value:9.3f}')
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()

"""Scoring a stored result again, against analysing the study with slabs.

  python tools/benchmarks/rescore.py [--slices 300] [--models DIR] [--json]

`rescore_ratio` is the seconds of `rescore`, without reading and writing files, divided
by those of `analyze` with slabs, medians of turns in one process. `edited_ratio` is the
same with another mask, excluded slices and thresholds. `reading_ratio`, for comparison:
reading and checking the stored result.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import analyze
import environment  # noqa: F401  Before TensorFlow.

from covid_tf import streams
from covid_tf.analysis import pipeline
from covid_tf.analysis import rescoring
from covid_tf.commands import model_flags
from covid_tf.reports import scored_study

_TURNS = 3


def _seconds(run) -> float:
  begin = time.perf_counter()
  run()
  return time.perf_counter() - begin


def measure(models, slices: int) -> dict[str, float]:
  """The ratios on a phantom of so many slices of 512 x 512, 1 mm apart."""
  volume = analyze.study(slices)
  pipeline.analyze(analyze.study(40), models, progress=False)  # Prepares the graphs.
  result = pipeline.analyze(volume, models, progress=False)
  mask = result.lung_mask.copy()
  mask[:, : mask.shape[1] // 3] = 0
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    scored_study.write_all(folder, result, volume, demo_models=False, with_report=False)
    scored = rescoring.read_scored(folder, volume)
    again = rescoring.rescore(scored, volume)
    assert again.corona_score_cm3 == result.corona_score_cm3  # Else nothing was asked.
    ways = {
      'analyze': lambda: pipeline.analyze(volume, models, progress=False),
      'rescore': lambda: rescoring.rescore(scored, volume),
      'edited': lambda: rescoring.rescore(
        scored,
        volume,
        lung_mask=mask,
        exclude_slices=range(10),
        slice_threshold=0.6,
        map_threshold=0.5,
      ),
      'reading': lambda: rescoring.read_scored(folder, volume),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_TURNS):
      for way, run in ways.items():
        seconds[way].append(_seconds(run))
  middle = {way: statistics.median(taken) for way, taken in seconds.items()}
  print(f'{slices} slices, {len(result.positive_slices)} positive')
  for way, taken in middle.items():
    print(f'  {way:10} {taken:8.2f} s')
  return {
    f'{way}_ratio': middle[way] / middle['analyze']
    for way in ('rescore', 'edited', 'reading')
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  model_flags.add_model_arguments(parser)
  parser.add_argument('--slices', type=int, default=300, help='default 300')
  parser.add_argument('--json', action='store_true', help='one JSON object at the end')
  arguments = parser.parse_args()
  with model_flags.open_models(arguments) as models:
    figures = measure(models, arguments.slices)
  for name, value in figures.items():
    print(f'{name:20} {value:.4f}')
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()

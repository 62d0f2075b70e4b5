"""Does the same question always get the same bits?

  python tools/benchmarks/repeatability.py                  # a table
  python tools/benchmarks/repeatability.py --json           # its figures, last line
  python tools/benchmarks/repeatability.py --share 0.02     # a short one

The shipped networks, exported as users have them, are asked batches of four slices:
2,000 of the classifier's grad_cam and 500 of the lungs' serving_default, spread over
one, two and four at once, on an idle machine and beside one busy process for each
core, with oneDNN and without. Each kind of arithmetic runs in a process of its own.
Then processes of their own score one phantom, with the settings that users have.

  batches      how many were asked
  wrong        those that differ by one bit from the first answer of their setting; all
               of a process that died
  runs_differ  of six processes that score the same study, how many differ from the
               first, or died
"""

import argparse
import contextlib
import functools
import hashlib
import json
import math
import os
import subprocess
import sys
import threading
import time

import environment  # noqa: F401  Before TensorFlow.
import numpy as np

import covid_tf
from covid_tf import streams
from covid_tf.datasets import phantom
from covid_tf.predictors import in_process

_BATCHES = {('classifier', 'grad_cam'): 2000, ('lungs', 'serving_default'): 500}
_AT_ONCE = (1, 2, 4)
_ONEDNN = ('1', '0')
_SLICES = 4
_DIFFERENT = 3  # Batches asked in turn.
_RUNS = 6
_SEED = phantom.TRAINING_SEED_LIMIT + 7  # Held out, with disease.


def ask(onednn: str, share: float) -> list[dict]:
  """One row a setting, from a process that computes with or without oneDNN."""
  settings = [
    (model, signature, busy, at_once)
    for model, signature in _BATCHES
    for busy in (False, True)
    for at_once in _AT_ONCE
  ]
  done = _child('--settings', str(share), onednn=onednn)
  rows = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == '{']
  for model, signature, busy, at_once in settings[len(rows) :]:
    count = _count(model, signature, share)
    rows.append(
      {
        'onednn': onednn,
        'model': model,
        'signature': signature,
        'busy': busy,
        'at_once': at_once,
        'batches': count,
        'wrong': count,
        'seconds': 0.0,
        'ended': done.returncode,
      }
    )
  return rows


def ask_here(share: float) -> None:
  """Prints a JSON object for each setting, in this process's arithmetic."""
  from covid_tf.sessions import servable

  folder = in_process.demo_models()
  crops = _crops()
  for model, signature in _BATCHES:
    with contextlib.closing(servable.Servable(folder / model / '1')) as served:
      for busy in (False, True):
        for at_once in _AT_ONCE:
          run = functools.partial(_answers, served, signature)
          count = _count(model, signature, share)
          begin = time.perf_counter()
          with _busy_cores() if busy else contextlib.nullcontext():
            wrong = _differing(run, crops, count, at_once)
          print(
            json.dumps(
              {
                'onednn': os.environ['TF_ENABLE_ONEDNN_OPTS'],
                'model': model,
                'signature': signature,
                'busy': busy,
                'at_once': at_once,
                'batches': count,
                'wrong': wrong,
                'seconds': round(time.perf_counter() - begin, 1),
              }
            ),
            flush=True,
          )


def _answers(served, signature: str, hu: np.ndarray) -> list[np.ndarray]:
  from covid_tf.models import export_check

  return list(export_check.answer(served, signature, {'hu': hu}).values())


def _count(model: str, signature: str, share: float) -> int:
  settings = len(_ONEDNN) * 2 * len(_AT_ONCE)
  return math.ceil(_BATCHES[model, signature] * share / settings)


def _differing(run, batches: list[np.ndarray], count: int, at_once: int) -> int:
  """How many answers of `count` differ by a bit from the first to the same batch."""
  first = [run(batch) for batch in batches]
  wrong = []

  def repeat(begin):
    for turn in range(begin, count, at_once):
      which = turn % len(batches)
      try:
        same = all(map(np.array_equal, run(batches[which]), first[which]))
      except Exception:  # Whatever it is, no answer is no right one.
        same = False
      if not same:
        wrong.append(turn)

  threads = [threading.Thread(target=repeat, args=(k,)) for k in range(at_once)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return len(wrong)


def _crops() -> list[np.ndarray]:
  """Batches int16 [4, rows, columns] of a held-out phantom, different slices each."""
  drawn = phantom.generate(phantom.draw_case(_SEED, 'diffuse'))
  rows, columns = (
    np.flatnonzero(drawn.lung_mask.any(axis=axes)) for axes in ((0, 2), (0, 1))
  )
  hu = drawn.volume.hu[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  which = np.linspace(0, len(hu) - 1, _SLICES * _DIFFERENT).round().astype(int)
  return np.split(hu[which], _DIFFERENT)


@contextlib.contextmanager
def _busy_cores():
  """One process a core that only computes."""
  busy = [
    subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    for _ in os.sched_getaffinity(0)
  ]
  try:
    yield
  finally:
    for process in busy:
      process.kill()
      process.wait()


def score_here() -> None:
  """Prints a digest of all that a score of the phantom comes from, and the score."""
  volume = phantom.generate(phantom.draw_case(_SEED, 'diffuse')).volume
  with covid_tf.load_models() as models:
    result = covid_tf.analyze(volume, models)
  digest = hashlib.sha256()
  parts = (result.slice_probability, result.lung_mask, *result.localization.maps)
  for values in parts:
    digest.update(np.ascontiguousarray(values).tobytes())
  print(
    json.dumps({'digest': digest.hexdigest(), 'score_cm3': result.corona_score_cm3})
  )


def runs_that_differ(count: int) -> tuple[int, list[str]]:
  """(how many of `count` processes differ from the first, what each printed)."""
  printed = []
  for _ in range(count):
    done = _child('--study')
    lines = done.stdout.splitlines()
    printed.append(
      lines[-1]
      if done.returncode == 0 and lines
      else f'ended with {done.returncode}: {len(printed)}'
    )
  return sum(line != printed[0] for line in printed) + (
    printed[0].startswith('ended')
  ), printed


def _child(*flags: str, onednn: str | None = None) -> subprocess.CompletedProcess:
  changed = {} if onednn is None else {'TF_ENABLE_ONEDNN_OPTS': onednn}
  return subprocess.run(
    [sys.executable, __file__, *flags],
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ | changed,
  )


def print_table(rows: list[dict], printed: list[str]) -> None:
  """Settings, then runs."""
  print(
    f'{"oneDNN":8}{"signature":28}{"machine":9}{"at once":>8}{"batches":>9}'
    f'{"wrong":>7}{"seconds":>9}'
  )
  for row in rows:
    name = f'{row["model"]} {row["signature"]}'
    print(
      f'{"on" if row["onednn"] == "1" else "off":8}{name:28}'
      f'{"busy" if row["busy"] else "idle":9}{row["at_once"]:8}{row["batches"]:9}'
      f'{row["wrong"]:7}{row["seconds"]:9.1f}'
      + (f'  the process ended with {row["ended"]}' if 'ended' in row else '')
    )
  for number, line in enumerate(printed, 1):
    print(f'run {number}: {line}')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--share', type=float, default=1.0, help='of the batches')
  parser.add_argument('--runs', type=int, default=_RUNS, help='processes that score')
  parser.add_argument('--json', action='store_true', help='one JSON object, last line')
  parser.add_argument('--settings', type=float, help=argparse.SUPPRESS)
  parser.add_argument('--study', action='store_true', help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.settings is not None:
    ask_here(arguments.settings)
    return
  if arguments.study:
    score_here()
    return
  rows = [row for onednn in _ONEDNN for row in ask(onednn, arguments.share)]
  differ, printed = runs_that_differ(arguments.runs)
  figures = {
    'batches': sum(row['batches'] for row in rows),
    'wrong': sum(row['wrong'] for row in rows),
    'runs_differ': differ,
  }
  if arguments.json:
    print(json.dumps(figures))
  else:
    print_table(rows, printed)
    print(*(f'{name} {value}' for name, value in figures.items()), sep='\n')


if __name__ == '__main__':
  with streams.safe_streams():
    main()

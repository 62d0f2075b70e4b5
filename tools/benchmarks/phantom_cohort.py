"""The demo's figures over many held-out phantoms, scored over gRPC.

  python tools/benchmarks/phantom_cohort.py --output=runs/cohort --cases=48 --json
  python tools/benchmarks/phantom_cohort.py --output=runs/paper --paper-size

Stop it at any time: the next call in the same folder goes on where it stood, as
long as the models are the same. `--findings` ends with what the paper finds: `covid-tf
cohort` and `covid-tf manifestations` over the stored results, beside the paper's
figures and the phantoms' true kinds, in cohort/ and manifestations/ of the folder.
`--paper-size` draws as many patients as the paper has, 109 with disease, 13 of them
graded severe and 36 not, and 90 without, and asks for the findings.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import shutil
import signal
import sys

import phantom_findings

from covid_tf import errors
from covid_tf import predictors
from covid_tf import streams
from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written
from covid_tf.demo import drawing
from covid_tf.demo import running
from covid_tf.demo import summary

# Seeds after the demo's, so that the two share no patient.
_FIRST_SEED = running.FIRST_SEED + 10_000
_AHEAD = 3  # Phantoms drawn while another is scored.
_GRADED = (('diffuse', True, 13), ('focal', False, 24), ('diffuse', False, 12))
_OTHERS = (('focal', 40), ('diffuse', 20), ('none', 90))


def main() -> int:
  """Draws and scores what is not there yet, then reports what was found."""
  arguments = _parse()
  # As Ctrl-C does: the server and the workers end too.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  folder = drawing.claim_folder(arguments.output)
  cases, ungraded = _cases(arguments)
  findings = arguments.findings or arguments.paper_size
  keep_studies = arguments.keep_studies or findings
  with drawing.workers() as pool, _server(arguments, folder, pool) as address:
    with predictors.connect(address) as models:
      identities = models.identities()
    print(summary.HEADER, flush=True)
    todo = [
      case
      for case in cases
      if not running.is_scored(folder, case, identities)
      or keep_studies
      and not _is_drawn(folder, case)
    ]
    found = [
      summary.compare_case(folder, drawing.case_name(case))
      for case in cases
      if case not in todo
    ]
    for name in _drawn(pool, folder, todo):
      running.score_case(folder, name, address)
      found.append(summary.compare_case(folder, name))
      print(summary.row(found[-1]), flush=True)
      if not keep_studies:
        shutil.rmtree(folder.study(name))
      summary.write_summary(folder, found, ungraded)
    summary.write_summary(folder, found, ungraded)
    named = summary.cohort_metrics(found)
    print(
      f'\n{len(found)} phantoms, {named["slices"]} slices\n'
      f'{summary.metrics_text(named)}',
      flush=True,
    )
    if findings:
      of_paper = phantom_findings.find(
        folder, address, [drawing.case_name(case) for case in cases]
      )
      print(f'\n{phantom_findings.text(of_paper)}')
      named |= of_paper
  if arguments.json:
    print(json.dumps(named))
  return 0


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=pathlib.Path, required=True)
  size = parser.add_mutually_exclusive_group()
  size.add_argument('--cases', type=int, default=36, help='default %(default)s')
  size.add_argument('--paper-size', action='store_true', help='199 patients')
  parser.add_argument(
    '--first-seed',
    type=int,
    default=_FIRST_SEED,
    metavar='N',
    help='of the phantoms (default %(default)s)',
  )
  parser.add_argument(
    '--matrix', type=int, default=256, help='rows and columns (default %(default)s)'
  )
  parser.add_argument(
    '--slice-spacing',
    type=float,
    metavar='MM',
    help='distance of slices (default: drawn for each phantom, 7 to 10)',
  )
  source = parser.add_mutually_exclusive_group()
  source.add_argument('--server', metavar='HOST:PORT', help='a running server')
  source.add_argument(
    '--models',
    type=pathlib.Path,
    metavar='DIR',
    help='models to serve (default: the shipped demo models)',
  )
  parser.add_argument(
    '--findings',
    action='store_true',
    help="end with the paper's experiments; keeps the studies, 5 MB each",
  )
  parser.add_argument('--keep-studies', action='store_true')
  parser.add_argument('--json', action='store_true')
  return parser.parse_args()


def _cases(arguments):
  """The phantoms, and the names of those whose severity is not labelled."""
  grid = {'matrix': arguments.matrix}
  if arguments.slice_spacing is not None:
    grid['slice_spacing_mm'] = arguments.slice_spacing
  if not arguments.paper_size:
    return phantom.cohort(arguments.cases, arguments.first_seed, **grid), frozenset()
  cases, seed = [], arguments.first_seed
  for kind, severe, count in _GRADED:
    cases += phantom.cohort({kind: count}, seed, severe=severe, **grid)
    seed += count
  graded = len(cases)
  for kind, count in _OTHERS:
    cases += phantom.cohort({kind: count}, seed, **grid)
    seed += count
  return cases, frozenset(drawing.case_name(case) for case in cases[graded:])


@contextlib.contextmanager
def _server(arguments, folder, pool):
  """The address to score at."""
  if arguments.server:
    yield arguments.server
    return
  models = arguments.models or folder.models
  if arguments.models is None:
    pool.submit(drawing.export_models, models).result()
  with running.serving(models) as address:
    yield address


def _is_drawn(folder, case) -> bool:
  """Whether the study of this very phantom is there; its truth then is, too."""
  name = drawing.case_name(case)
  try:
    truth = written.read_truth(folder.truth(name))
  except errors.UsageError:
    return False
  return truth.series_uid == written.series_uid(case) and folder.study(name).is_dir()


def _drawn(pool, folder, cases):
  """Names of the cases as they are drawn, a few ahead of their use."""
  waiting = collections.deque()
  for case in cases:
    waiting.append(
      pool.submit(drawing.case_name, case)
      if _is_drawn(folder, case)
      else pool.submit(drawing.draw, folder, case)
    )
    if len(waiting) > _AHEAD:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


if __name__ == '__main__':
  with streams.safe_streams():
    try:
      sys.exit(main())
    except errors.CovidTFError as error:
      sys.exit(f'phantom_cohort: {error}')

"""Ten studies from one Orthanc through a node to another, with the demo models.

What comes out, result and structured report, is compared with what `covid-tf score`
makes of the same folders: every number, exactly. Both ask one server: in a process of
their own, the networks give other last bits to another number of threads (1e-8 of a
score), of which a node's workers have fewer than `score`.
"""

import contextlib
import os
import pathlib
import sys
import time

_ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / 'tests' / 'support')]

import two_pacs  # noqa: E402

from covid_tf.datasets import phantom  # noqa: E402
from covid_tf.datasets.phantom import written  # noqa: E402
from covid_tf.demo import running  # noqa: E402
from covid_tf.predictors import in_process  # noqa: E402

# Of the folder of real CT (COVID_TF_REAL_CT, or shared/data beside the checkout).
_REAL = (
  'lung-pet-ct-dx-a0002-b40f/series',
  'cip-ct64/series',
  'backgrounds/cptac-c3l-00189/series',
  'backgrounds/lidc-idri-0001/series',
  'backgrounds/lidc-idri-0002/series',
  'backgrounds/lidc-idri-0003/series',
)
_KINDS = phantom.KINDS
_MOST_SECONDS = 3600.0


def run(root: pathlib.Path, count: int) -> dict[str, float]:
  """Sends, waits, compares.

  Args:
    root: an empty folder.
    count: of studies: real ones where there are any, and phantoms.

  Returns:
    `studies`, `real`, `different` (studies with any other number), `missing` (without
    a report at the destination), and seconds from the first study to the last report.
  """
  real = _real_studies()[:count]
  drawn = [_phantom(root / f'phantom{n}', n) for n in range(count - len(real))]
  different = 0
  with two_pacs.started(
    root / 'way', '--settle=5', '--no-reports', serve=_serve
  ) as between:
    folders = {between.give(folder): folder for folder in (*real, *drawn)}
    begin = time.monotonic()
    for uid in folders:
      between.route(uid)
    between.wait_for(lambda: set(between.reports()) >= set(folders), _MOST_SECONDS)
    seconds = time.monotonic() - begin
    for number, (uid, folder) in enumerate(folders.items()):
      ours = two_pacs.numbers_of_node(between, uid, root / f'back{number}')
      score = two_pacs.numbers_of_score(between, folder, root / f'score{number}')
      different += ours != score
      name = f'{folder.parent.name}/{folder.name}'
      same = 'equal' if ours == score else 'DIFFERENT'
      print(
        f'{name:36} {ours.corona_score_cm3!r:>22} cm3 {ours.lung_volume_cm3!r:>22} cm3 '
        f'{len(ours.measurements):3} groups {same}',
        file=sys.stderr,
        flush=True,
      )
    missing = set(folders) - set(between.reports())
  return {
    'studies': len(folders),
    'real': len(real),
    'different': different,
    'missing': len(missing),
    'seconds': seconds,
  }


def _serve() -> contextlib.AbstractContextManager[str]:
  return running.serving(in_process.demo_models())


def _real_studies() -> list[pathlib.Path]:
  default = _ROOT.parent / 'shared' / 'data'
  folder = pathlib.Path(os.environ.get('COVID_TF_REAL_CT') or default)
  return [folder / name for name in _REAL if (folder / name).exists()]


def _phantom(folder: pathlib.Path, number: int) -> pathlib.Path:
  case = phantom.draw_case(
    phantom.TRAINING_SEED_LIMIT + 100 + number,
    _KINDS[number % len(_KINDS)],
    slice_spacing_mm=10.0,
    slice_thickness_mm=10.0,
    matrix=256,
  )
  return written.write_study(phantom.generate(case), folder)

"""What the tutorials share: a phantom's study, a small archive, the exported models.

  python docs/tutorials/prepare.py FOLDER

`bash tools/docs.sh` runs it before Sphinx runs the tutorials in that folder.
"""

import csv
import pathlib
import shutil
import sys

from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written
from covid_tf.predictors import in_process

_FIRST_SEED = phantom.TRAINING_SEED_LIMIT + 40
# Kind, share of the lungs that opacities take, and grade of the archive's patients.
_ARCHIVE = (
  ('none', 0.0, ''),
  ('none', 0.0, ''),
  ('none', 0.0, ''),
  ('focal', 0.03, 'non-severe'),
  ('focal', 0.06, 'non-severe'),
  ('diffuse', 0.2, 'severe'),
  ('diffuse', 0.3, 'severe'),
)


def main(folder: pathlib.Path) -> None:
  """Writes `study/`, `exported/`, `archive/` and `labels.csv`."""
  folder.mkdir(parents=True, exist_ok=True)
  case = phantom.draw_case(1_000_007, 'focal', matrix=256, slice_spacing_mm=15.0)
  written.write_study(phantom.generate(case), folder / 'study')
  shutil.copytree(in_process.demo_models(), folder / 'exported')
  rows = [('study_uid', 'patient_id', 'covid', 'severity')]
  for index, (kind, share, grade) in enumerate(_ARCHIVE):
    case = phantom.draw_case(
      _FIRST_SEED + index,
      kind,
      lesion_fraction=share,
      matrix=128,
      slice_spacing_mm=25.0,
      slice_thickness_mm=10.0,
    )
    written.write_study(phantom.generate(case), folder / 'archive' / f'patient_{index}')
    covid = '0' if kind == 'none' else '1'
    rows.append((written.study_uid(case), f'P{index}', covid, grade))
  with (folder / 'labels.csv').open('w', newline='', encoding='utf-8') as file:
    csv.writer(file, lineterminator='\n').writerows(rows)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))

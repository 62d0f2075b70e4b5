"""docs/cohort_on_phantoms.ipynb runs, cell by cell, as Jupyter would run it."""

import ast
import json
import pathlib

import cohort_files
import numpy as np

NOTEBOOK = pathlib.Path(__file__).parents[2] / 'docs' / 'cohort_on_phantoms.ipynb'


def run_cell(source, names):
  """Executes a cell; returns what its last expression shows."""
  tree = ast.parse(source)
  last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
  exec(compile(tree, 'cell', 'exec'), names)
  if last is None:
    return None
  value = eval(compile(ast.Expression(last.value), 'cell', 'eval'), names)
  return value._repr_svg_() if hasattr(value, '_repr_svg_') else repr(value)


def test_every_cell_runs_and_shows_something(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  grades = ['severe' if i < 5 else 'non-severe' for i in range(15)]
  cohort_files.write_cohort(
    tmp_path, rng.gamma(2, 60, 20), rng.gamma(0.5, 10, 15), grades
  )
  monkeypatch.setenv('COVID_TF_COHORT', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  notebook = json.loads(NOTEBOOK.read_text('utf-8'))
  names, shown = {}, []
  for cell in notebook['cells']:
    if cell['cell_type'] == 'code':
      assert cell['outputs'] == []  # Kept without outputs: nothing in it grows stale.
      shown.append(run_cell(''.join(cell['source']), names))
  assert all(shown)
  assert sum('<svg' in text for text in shown) == 2
  assert 'cohort.html' in shown[-1] and 'figures/detection_roc.svg' in shown[-1]
  assert names['report'].detection.n_positive == 20

"""Smoothings compared on answers that were asked once."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest

from covid_tf import results
from covid_tf import volume
from covid_tf.datasets import judged_chests

_FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'
_SLABS = 20


@pytest.fixture(name='tool')
def _tool(monkeypatch):
  monkeypatch.syspath_prepend(_FOLDER)
  spec = importlib.util.spec_from_file_location(
    'smoothing_benchmark', _FOLDER / 'smoothing.py'
  )
  module = importlib.util.module_from_spec(spec)
  monkeypatch.setitem(sys.modules, spec.name, module)
  spec.loader.exec_module(module)
  return module


def _chest():
  """Mean HU is 100 times the logit: a lone alarm, and one opacity through 9 slabs."""
  own = np.full(_SLABS, -200, np.int16)
  own[3] = 150
  shown = np.full(9, 100, np.int16)

  def planes(values):
    return np.broadcast_to(values[:, None, None], (len(values), 4, 4)).copy()

  between = np.r_[np.full(_SLABS - 1, -200), np.full(8, 100)].astype(np.int16)
  return judged_chests.JudgedChest(
    name='a',
    acquisition=volume.Acquisition(),
    pixel_mm=(1.0, 1.0),
    thickness_mm=5.0,
    lung_mask=np.ones((_SLABS, 4, 4), np.uint8),
    hu=planes(np.r_[own, shown]),
    slab=np.r_[np.arange(_SLABS), np.arange(8, 17)].astype(np.int32),
    study=np.r_[np.full(_SLABS, -1), np.zeros(9)].astype(np.int32),
    label=np.r_[np.zeros(_SLABS), np.ones(9)].astype(np.int8),
    lesion_mask=np.zeros((_SLABS + 9, 4, 4), np.uint8),
    amount_cm3=np.array([40.0]),
    kinds=('ground glass',),
    skipped=0,
    between_hu=planes(between),
    between_slab=np.r_[np.arange(_SLABS - 1), np.arange(8, 16)].astype(np.int32),
    between_study=np.r_[np.full(_SLABS - 1, -1), np.zeros(8)].astype(np.int32),
  )


def test_a_lone_alarm_is_smoothed_away_with_answers_asked_once(tool):
  asked = []

  def classifier(hu):
    asked.append(len(hu))
    p = 1 / (1 + np.exp(-hu.mean((1, 2)) / 100))
    return results.SliceExplanation(p.astype(np.float32), None, None)

  one = tool._Asked.of(_chest(), classifier)
  assert asked == [_SLABS + 9, _SLABS - 1 + 8] and not len(one.chest.hu)
  plain, smooth = (tool.compare([one], [one], by, 0.95) for by in (0.0, 8.0))
  assert asked == [29, 27]
  assert plain['slabs'] == [9, 9, _SLABS]
  assert plain['at_0.5'] == [1.0, 1.0, 0.95] and plain['auc'] == 0.95
  assert smooth['at_0.5'][2] == 1 and smooth['auc'] == smooth['auc_small'] == 1
  assert smooth['at_0.5'][0] > 0.7
  # The ends of the opacity are called again by the shift that its specificity allows.
  assert smooth['shift'] > 0 and smooth['shifted'][:1] == [1.0]

"""Regions that a label map names, such as lobes: score, densities, involved share.

The map is another program's: which label means what, only its names say. What cannot be
meant is refused (docs/densities.md).
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import textwrap
from typing import Any

import numpy as np

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import volume as volume_lib
from covid_tf.analysis import densities
from covid_tf.storage import tables

# All ours. More labels are the map of something else, or no regions.
MOST_REGIONS = 200
_LONGEST_NAME = 64
_MOST_LABELS = np.iinfo(np.uint16).max
# Of the lungs; lobes that leave out more are not those of these lungs.
_LEFT_OUT_FRACTION = 0.05
_FEW = 6  # Labels or names that a refusal lists.


@dataclasses.dataclass(frozen=True)
class LabelMap:
  """Regions of a CT, one label each.

    lobes = covid_tf.LabelMap(labels, {1: 'right_upper_lobe'})
    result = covid_tf.analyze(volume, regions=lobes)

  `analyze` and `rescore` raise a UsageError where it does not fit the CT.

  Attributes:
    labels: whole numbers [slice, row, column] on the CT's grid, from 0 to 65535; 0 is
      no region (`covid_tf.readers.label_maps.read_label_map` reads them).
    names: label to name of the regions to measure; None: all, as 'label_1' and so on.
  """

  labels: np.ndarray
  names: Mapping[int, str] | None = None


# Names of labels, as files and flags state them.


def read_names(stated: str | os.PathLike[str]) -> dict[int, str]:
  """Names of labels.

  Args:
    stated: a JSON file, an object of labels and names in either order
      ({"1": "left_upper_lobe"} or {"left_upper_lobe": 1}); a table with the columns
      `label` and `name`; or '1=left_upper_lobe,2=left_lower_lobe'.

  Returns:
    Label to name.

  Raises:
    errors.UsageError: there is no such file, or these are no names of labels.
  """
  text = os.fspath(stated)
  path = pathlib.Path(text)
  if '=' in text and not os.path.isfile(text):  # Path.is_file raises at long texts.
    where = 'region names'
    parts = [part.partition('=') for part in text.split(',') if part.strip()]
    pairs: list[tuple[Any, Any]] = [(label, name) for label, _, name in parts]
  else:
    where = text
    pairs = _pairs_of_file(path)
  pairs = [pair for pair in pairs if not _is_background(*pair)]
  return _unique(where, [_pair(where, *pair) for pair in pairs])


def _pairs_of_file(path: pathlib.Path) -> list[tuple[Any, Any]]:
  if path.suffix.lower() != '.json':
    rows = tables.read_table(path, ('label', 'name'))
    return [(row.cells['label'], row.cells['name']) for row in rows]
  try:
    pairs = json.loads(path.read_text('utf-8-sig'), object_pairs_hook=list)
  except OSError as error:
    raise errors.UsageError(
      f'{path}: a file of region names is required, found none that can be read '
      f'({error.strerror}).'
    ) from None
  except (ValueError, RecursionError):
    raise _no_names(str(path), 'no JSON') from None
  if not isinstance(pairs, list) or not all(
    isinstance(pair, tuple) and len(pair) == 2 for pair in pairs
  ):
    raise _no_names(str(path), 'other JSON')
  return pairs


def _is_background(*pair: Any) -> bool:
  """Whether it names label 0, as lists of networks' labels do."""
  words = {str(part).strip().casefold() for part in pair}
  return words == {'0', 'background'}


def _pair(where: str, key: Any, value: Any) -> tuple[int, str]:
  """(label, name), whichever of the two comes first."""
  if isinstance(value, int) and not isinstance(value, bool):
    key, value = str(value), key
  key = str(key).strip()
  if not (key.isascii() and key.isdecimal() and len(key) <= 5 and 0 < int(key)):
    raise _no_names(where, f'the label {textwrap.shorten(key, 40)!r}')
  if not isinstance(value, str):
    raise _no_names(where, f'a name of label {key} that is no text')
  return int(key), value.strip()


def _unique(where: str, pairs: list[tuple[int, str]]) -> dict[int, str]:
  names = dict(pairs)
  if not names:
    raise _no_names(where, 'none')
  if len(names) < len(pairs):
    labels = [label for label, _ in pairs]
    twice = next(label for label in labels if labels.count(label) > 1)
    raise _no_names(where, f'label {twice} twice')
  _check_names(where, names)
  return names


def _check_names(where: str, names: Mapping[int, str]) -> None:
  seen: dict[str, int] = {}
  for label, name in names.items():
    if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME:
      raise _no_names(where, f'a name of label {label} that is blank or too long')
    if not name.isprintable():
      raise _no_names(where, f'a name of label {label} that cannot be printed')
    other = seen.setdefault(name.casefold(), label)
    if other != label:
      raise _no_names(where, f'{name!r} for the labels {other} and {label}')


def _no_names(where: str, found: str) -> errors.UsageError:
  return errors.UsageError(
    f'{where}: labels from 1 to {_MOST_LABELS} with a name each are required, no name '
    f'twice and none above {_LONGEST_NAME} characters, found {found}; give for '
    "instance '1=left_upper_lobe,2=left_lower_lobe'."
  )


# A label map of a study, checked against it.


def checked(volume: volume_lib.CTVolume, regions: object) -> LabelMap:
  """Checks a label map of a study.

  Args:
    volume: the CT.
    regions: its label map.

  Returns:
    The same, labels as uint16, and every region with its name.

  Raises:
    errors.UsageError: it is of another kind or shape, empty, or its names do not fit.
  """
  if not isinstance(regions, LabelMap):
    raise errors.UsageError(
      'regions: a covid_tf.LabelMap is required, found '
      f'{type(regions).__name__}; covid_tf.LabelMap(labels, names) makes one of whole '
      'numbers [slice, row, column].'
    )
  labels = _checked_labels(volume, regions.labels)
  sizes = np.zeros(_MOST_LABELS + 1, np.int64)
  for plane in labels:  # Counting takes eight bytes a voxel.
    found = np.bincount(plane.reshape(-1))
    sizes[: len(found)] += found
  held = [label for label in np.flatnonzero(sizes).tolist() if label]
  if not held:
    raise errors.UsageError(
      'regions: a label map with labels above 0 is required, found an empty one.'
    )
  names = regions.names
  if names is None:
    names = {label: f'label_{label}' for label in held}
  else:
    names = _fitting(names, held)
  if len(names) > MOST_REGIONS:
    raise errors.UsageError(
      f'regions: at most {MOST_REGIONS} regions are required, found {len(names)}; '
      'name those that are wanted (--region-names).'
    )
  return LabelMap(labels, names)


def _checked_labels(volume: volume_lib.CTVolume, labels: object) -> np.ndarray:
  if not isinstance(labels, np.ndarray) or labels.dtype.kind not in 'iub':
    raise errors.UsageError(
      'regions: a numpy array of whole numbers is required, found '
      f'{getattr(labels, "dtype", type(labels).__name__)}.'
    )
  if labels.shape != volume.shape:
    raise errors.UsageError(
      f'regions: the shape of the CT is required, {volume.shape} (slices, rows, '
      f'columns), found {labels.shape}.'
    )
  if labels.min() < 0 or labels.max() > _MOST_LABELS:
    raise errors.UsageError(
      f'regions: labels from 0 to {_MOST_LABELS} are required, found '
      f'{labels.min()} to {labels.max()}.'
    )
  return labels.astype(np.uint16, copy=False)


def _fitting(names: object, held: list[int]) -> dict[int, str]:
  if not isinstance(names, Mapping) or not names:
    raise _no_names('region names', f'{type(names).__name__}')
  pairs = [_pair('region names', label, name) for label, name in names.items()]
  found = _unique('region names', pairs)
  unknown = sorted(set(found) - set(held))
  if unknown:
    raise errors.UsageError(
      'region names: labels of the label map are required '
      f'({_some(held)}), found {_some(unknown)}; leave out those that it does not hold.'
    )
  return found


def _some(labels: list[int]) -> str:
  text = ', '.join(map(str, labels[:_FEW]))
  return text if len(labels) <= _FEW else f'{text} and {len(labels) - _FEW} more'


# What is measured of them.


class RegionTally:
  """Collects the counted voxels of each region while the score is summed.

  Attributes:
    label_map: the regions, checked.
    score: float64 [region + 1], sum of the map; the last is of no region.
    involved: int64 [region + 1], counted voxels.
  """

  def __init__(self, label_map: LabelMap) -> None:
    self.label_map = label_map
    assert label_map.names is not None  # `checked` has named all.
    self._place = np.full(
      int(max(label_map.labels.max(), max(label_map.names))) + 1, len(label_map.names)
    )
    self._place[list(label_map.names)] = np.arange(len(label_map.names))
    self.score = np.zeros(len(label_map.names) + 1)
    self.involved = np.zeros(len(self.score), np.int64)

  def observe(
    self, slice_: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray
  ) -> None:
    """Takes in what counts of one slice inside the lungs (corona_score.Observer)."""
    place = self._place[self.label_map.labels[slice_, rows, columns]]
    self.involved += np.bincount(place, minlength=len(self.score))
    self.score += np.bincount(place, weights=values, minlength=len(self.score))

  def measured(
    self,
    volume: volume_lib.CTVolume,
    lung_mask: np.ndarray,
    schemes: lung_measures.DensitySchemes,
  ) -> lung_measures.LabelRegions:
    """All that is measured of the regions.

    Args:
      volume: the CT.
      lung_mask: uint8 [slice, row, column], 0 or 1.
      schemes: what densities are measured by.

    Raises:
      errors.UsageError: no region covers any lung.
    """
    counts = densities.VoxelCounts(len(self.score))
    sizes = np.zeros(len(self.score), np.int64)
    digest = hashlib.sha256()
    for hu, labels, lung in zip(volume.hu, self.label_map.labels, lung_mask):
      digest.update(np.ascontiguousarray(labels, '<u2').data)
      place = self._place[labels]
      sizes += np.bincount(place.reshape(-1), minlength=len(sizes))
      inside = lung != 0
      counts.add(hu[inside], place[inside])
    lungs = counts.counts.sum(axis=1)
    if not lungs[:-1].any():
      raise errors.UsageError(
        'regions: a label map that covers lung of this CT is required, found none of '
        'the lung in any region; is it the map of another study, or of other organs?'
      )
    cm3 = volume.voxel_volume_mm3 / 1000
    names = self.label_map.names or {}
    return lung_measures.LabelRegions(
      digest.hexdigest(),
      schemes,
      int(lungs[-1]) * volume.voxel_volume_mm3 / 1000,
      {
        name: lung_measures.LabelRegion(
          label,
          int(sizes[place]) * volume.voxel_volume_mm3 / 1000,
          float(self.score[place]) * cm3,
          int(self.involved[place]) / int(lungs[place]) if lungs[place] else None,
          densities.of_counts(
            counts.counts[place], counts.lowest_hu, volume.voxel_volume_mm3, schemes
          ),
        )
        for place, (label, name) in enumerate(names.items())
      },
    )


# The score of five lobes.

_LOBE_WORDS = frozenset(('lung', 'lobe', 'of', 'the'))
_ABBREVIATED = {
  'rul': 'right_upper_lobe',
  'rml': 'right_middle_lobe',
  'rll': 'right_lower_lobe',
  'lul': 'left_upper_lobe',
  'lll': 'left_lower_lobe',
}


def lobe_of(name: str) -> str | None:
  """Which of lung_measures.LOBES a region's name means; None: none of them.

  Args:
    name: for instance 'lung_upper_lobe_left', as TotalSegmentator has it, 'Right upper
      lobe' or 'RUL'.
  """
  words = re.findall('[a-z]+|[0-9]+', name.casefold())
  if len(words) == 1 and words[0] in _ABBREVIATED:
    return _ABBREVIATED[words[0]]
  telling = sorted(set(words) - _LOBE_WORDS)
  for lobe in lung_measures.LOBES:
    side, level, _ = lobe.split('_')
    if telling == sorted((side, level)):
      return lobe
  return None


def lobe_score(
  regions: lung_measures.LabelRegions,
) -> lung_measures.LobeScore | None:
  """The 0 to 25 score of five lobes; None where the regions are not all five.

  Args:
    regions: as measured; others than lobes are ignored.
  """
  by_lobe = {
    lobe: region
    for name, region in regions.regions.items()
    if (lobe := lobe_of(name)) is not None
  }
  if set(by_lobe) != set(lung_measures.LOBES):
    return None
  shares = {lobe: by_lobe[lobe].involved_lung_fraction for lobe in lung_measures.LOBES}
  grades = {
    lobe: None if share is None else _lobe_grade(share)
    for lobe, share in shares.items()
  }
  return lung_measures.LobeScore(sum(filter(None, grades.values())), grades, shares)


def _lobe_grade(share: float) -> int:
  return (share > 0) + sum(share > cut for cut in lung_measures.LOBE_CUTS)


def warnings(
  regions: lung_measures.LabelRegions,
  lobes: lung_measures.LobeScore | None,
  lung_volume_cm3: float,
) -> tuple[str, ...]:
  """What a reader of the regions should know.

  Args:
    regions: as measured.
    lobes: their score, or None.
    lung_volume_cm3: volume of the lung mask.
  """
  said = []
  empty = [
    name for name, region in regions.regions.items() if not region.densities.volume_cm3
  ]
  if empty:
    listed = ', '.join(empty[:_FEW]) + (', …' if len(empty) > _FEW else '')
    said.append(f'These regions of the label map cover no lung: {listed}.')
  left_out = regions.unlabelled_lung_cm3 / lung_volume_cm3
  if lobes is not None and left_out > _LEFT_OUT_FRACTION:
    said.append(
      f'{left_out:.1%} of the lung lies in none of the five lobes of the label map.'
    )
  return tuple(said)

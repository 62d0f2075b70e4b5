"""What was found of manifestations, as files."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

import matplotlib.figure
import matplotlib.patches
import numpy as np

from covid_tf import version
from covid_tf.cohort import paper
from covid_tf.cohort.manifestations import clusters as clusters_lib
from covid_tf.cohort.manifestations import features
from covid_tf.cohort.manifestations import kinds
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.storage import files

# Figure 5 of the paper, of this cohort: the feature space with its key slices.

_WIDTH_INCH = 7.2  # 183 mm, two columns of most journals.
_MARKS = ('o', 's', '^', 'D', 'v', 'P')
_SIDE_SHARE = 0.27  # Of the width, for the key slices on each side.
_GREY_RAMP = 'gray'


@dataclasses.dataclass(frozen=True)
class KeySlice:
  """A slice to show.

  Attributes:
    picture: uint8 [height, width], the lung crop.
    map: uint8 [height, width], 255 for 1.
  """

  picture: np.ndarray
  map: np.ndarray


def space_figure(
  fitted: kinds.Fitted, keys: Sequence[Sequence[KeySlice]], caption: str
) -> matplotlib.figure.Figure:
  """Draws the plane with four key slices beside each cluster.

  Args:
    fitted: the fitted cohort.
    keys: for each cluster its key slices, nearest first.
    caption: what it shows, see `space_caption`.

  Returns:
    The figure.
  """
  with figures.styled():
    figure = figures.new_figure(height_inch=4.6, width_inch=_WIDTH_INCH)
    foot = 0.17
    axes = figure.add_axes(
      (
        _SIDE_SHARE + 0.085,
        foot + 0.085,
        1 - 2 * _SIDE_SHARE - 0.105,
        0.98 - foot - 0.1,
      )
    )
    _scatter(axes, fitted)
    centres = fitted.model.plane(fitted.model.centres)
    for left, clusters in zip((0.01, 1 - _SIDE_SHARE + 0.01), _sides(centres)):
      for place, cluster in enumerate(clusters):
        height = (0.98 - foot) / len(clusters)
        _block(
          figure,
          fitted.model.names[cluster],
          keys[cluster],
          _colour(cluster),
          left,
          0.98 - (place + 0.5) * height,
          height,
        )
    figures.put_caption(figure, caption, 145, tight=False)
    return figure


def space_caption(fitted: kinds.Fitted) -> str:
  """n, the rule for k, and how stable the clusters are."""
  table, outcome = fitted.table, fitted.outcome
  first, second = (100 * share for share in fitted.model.explained)
  diseased = len(np.unique(table.study[table.positive]))
  clear = len(np.unique(table.study[~table.positive]))
  how = 'elbow' if outcome.k == outcome.scan.elbow_k else 'chosen'
  words = (
    ''
    if outcome.silhouette is None
    else (f', mean silhouette {outcome.silhouette:.2f}')
  )
  return (
    f'Features of {table.positive.sum()} positive slices of {diseased} studies '
    f'and {(~table.positive).sum()} negative slices of {clear}; weighting '
    f'"{outcome.weighting}". PCA ({first:.0f} % and {second:.0f} % of the '
    f'variance). k-means with k\u00a0=\u00a0{outcome.k} ({how}; k up to '
    f'{outcome.scan.k[-1]}){words}; adjusted Rand index over restarts '
    f'{outcome.clustering.stability:.2f}. Crosses: centres. Beside: the four slices '
    'nearest to each centre, fused Grad-CAM in colour.'
  )


def elbow_figure(outcome: kinds.Outcome) -> matplotlib.figure.Figure:
  """Draws inertia and silhouette over k."""
  with figures.styled():
    figure = figures.new_figure(height_inch=3.1)
    axes = figure.add_subplot()
    scan = outcome.scan
    inertia = np.array(scan.inertia) / max(scan.inertia[0], 1e-30)
    axes.plot(
      scan.k,
      inertia,
      'o-',
      color=figures.BLUE,
      ms=3.5,
      lw=1.2,
      label='inertia, relative to k = 1',
    )
    axes.plot(
      [scan.k[0], scan.k[-1]],
      [inertia[0], inertia[-1]],
      ':',
      color=figures.GREY,
      lw=0.8,
    )
    shown = [
      (k, value) for k, value in zip(scan.k, scan.silhouette) if value is not None
    ]
    if shown:
      axes.plot(
        *zip(*shown),
        's--',
        color=figures.ORANGE,
        ms=3.5,
        lw=1.0,
        label='mean silhouette',
      )
    axes.axvline(outcome.k, color='black', lw=0.8)
    axes.set(xlabel='Number of clusters k', xticks=scan.k)
    axes.legend(fontsize=7)
    figures.put_caption(
      figure,
      (
        f'Elbow rule: the k whose inertia lies furthest below the dotted line from k = '
        f'1 to {scan.k[-1]}, both axes scaled to [0, 1]; it takes k = {scan.elbow_k}. '
        f'Taken here (line): {outcome.k}. Weighting "{outcome.weighting}".'
      ),
    )
    return figure


def _scatter(axes, fitted: kinds.Fitted) -> None:
  labels = fitted.outcome.clustering.labels
  for cluster, name in enumerate(fitted.model.names):
    own = labels == cluster
    axes.scatter(
      *fitted.plane[own].T,
      s=8,
      marker=_MARKS[cluster % len(_MARKS)],
      color=_colour(cluster),
      alpha=0.55,
      linewidths=0,
      rasterized=True,
      label=f'{name} ({own.sum()}, {fitted.table.positive[own].sum()} positive)',
    )
    keys = fitted.key_slices[cluster]
    axes.scatter(
      *fitted.plane[keys].T,
      s=22,
      marker=_MARKS[cluster % len(_MARKS)],
      color=_colour(cluster),
      edgecolors='black',
      linewidths=0.7,
      zorder=3,
    )
  centres = fitted.model.plane(fitted.model.centres)
  axes.plot(*centres.T, 'X', color='black', mec='white', mew=0.8, ms=8, zorder=4)
  first, second = (100 * share for share in fitted.model.explained)
  axes.set(
    xlabel=f'First principal component ({first:.0f} %)',
    ylabel=f'Second principal component ({second:.0f} %)',
  )
  axes.legend(fontsize=7, loc='best', handletextpad=0.1)


def _block(
  figure,
  name: str,
  slices: Sequence[KeySlice],
  colour: str,
  left: float,
  middle: float,
  height: float,
) -> None:
  """Two by two key slices under the cluster's name, about `middle`."""
  title = 0.05
  cell_width = (_SIDE_SHARE - 0.02) / 2
  # As high as the tallest picture at that width, where there is space.
  shape = figure.get_figwidth() / figure.get_figheight()
  tallest = max(
    (key.picture.shape[0] / key.picture.shape[1] for key in slices), default=1
  )
  cell_height = min(cell_width * shape * tallest, (height - title) / 2)
  top = middle + cell_height + title / 2
  figure.text(
    left + cell_width,
    top,
    name,
    color=colour,
    fontsize=9,
    weight='bold',
    ha='center',
    va='top',
  )
  for place, key in enumerate(slices):
    row, column = divmod(place, 2)
    axes = figure.add_axes(
      (
        left + column * cell_width,
        top - title - (row + 1) * cell_height,
        cell_width * 0.96,
        cell_height * 0.95,
      )
    )
    axes.imshow(key.picture, cmap=_GREY_RAMP, vmin=0, vmax=255)
    axes.imshow(pictures.heat_colours(key.map / 255.0))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
      spine.set(visible=True, color=colour, linewidth=1.6)


def _sides(centres: np.ndarray) -> tuple[list[int], list[int]]:
  """Clusters for the left and the right column, each from top to bottom."""
  by_x = np.argsort(centres[:, 0], kind='stable').tolist()
  left = by_x[: len(by_x) // 2]
  right = by_x[len(by_x) // 2 :]
  height = lambda i: -centres[i, 1]
  return sorted(left, key=height), sorted(right, key=height)


def _colour(cluster: int) -> str:
  return figures.CATEGORIES[cluster % len(figures.CATEGORIES)]


SCHEMA_VERSION = 1  # Of manifestations.json.
_MOST_LISTED = 200  # Studies on the page; all are in manifestations.json.


@dataclasses.dataclass(frozen=True)
class StudyShares:
  """One patient's answer.

  Attributes:
    study_uid: the study.
    positive_slices: how many.
    shares: kind to the share of the positive slices, or None without any.
  """

  study_uid: str
  positive_slices: int
  shares: dict[str, float] | None


def study_shares(fitted: kinds.Fitted) -> list[StudyShares]:
  """The shares of every study of a fitted cohort."""
  table, labels = fitted.table, fitted.outcome.clustering.labels
  found = []
  for number, uid in enumerate(table.study_uids):
    own = table.study == number
    found.append(
      StudyShares(
        uid,
        int(table.positive[own].sum()),
        kinds.shares(fitted.model.names, labels[own], table.positive[own]),
      )
    )
  return found


def write_fitted(
  fitted: kinds.Fitted,
  described: features.Described,
  output: pathlib.Path,
  demo_models: bool,
) -> None:
  """Writes manifestations.json, manifestations.html, the model and the figures.

  Args:
    fitted: the fitted cohort.
    described: its studies.
    output: the folder.
    demo_models: whether the demo models answered; every file states it.
  """
  clusters_lib.save_model(fitted.model, output / 'manifestation_model.npz')
  caption = space_caption(fitted)
  if demo_models:
    caption += ' DEMO MODELS, trained on phantoms.'
  space = space_figure(fitted, key_pictures(fitted, described), caption)
  elbow = elbow_figure(fitted.outcome)
  figures.save(space, output / 'figures' / 'manifestations')
  figures.save(elbow, output / 'figures' / 'manifestations_elbow')
  shares = study_shares(fitted)
  found = {
    'warnings': warnings(fitted, described, demo_models),
    'demo_models': demo_models,
    'models': fitted.model.models,
    'thresholds': fitted.model.thresholds,
    'slices': _slices(fitted),
    'clusters': _clusters(fitted),
    'weighting': fitted.outcome.weighting,
    'weightings': [_outcome(outcome) for outcome in (fitted.outcome, *fitted.others)],
  }
  files.write_atomically(
    output / 'manifestations.html',
    pages.render(
      'manifestations.html',
      found=found,
      paper=paper,
      demo_models=demo_models,
      names=fitted.model.names,
      same_gradient=fitted.table.same_gradient,
      meanings=features.WEIGHTINGS,
      shares=shares,
      most=_MOST_LISTED,
      refused=described.refused,
      space_svg=figures.svg_text(space),
      elbow_svg=figures.svg_text(elbow),
    ),
  )
  write_json(output / 'manifestations.json', shares, described.refused, found)


def write_json(
  path: pathlib.Path,
  shares: Sequence[StudyShares],
  refused: Mapping[str, str],
  more: Mapping,
) -> None:
  """Writes the shares of every study, and whatever else is known."""
  content = {
    'schema_version': SCHEMA_VERSION,
    'software': version.SOFTWARE,
    **more,
    'studies': [dataclasses.asdict(study) for study in shares],
    'refused': [{'study': name, 'reason': reason} for name, reason in refused.items()],
  }
  files.write_json(path, content)


def warnings(
  fitted: kinds.Fitted, described: features.Described, demo_models: bool
) -> list[str]:
  """What must be known before the clusters are believed."""
  found = []
  if demo_models:
    found.append(
      'Features of the demo models, trained on phantoms: they show how this '
      'works and do not hold for patients.'
    )
  if described.refused:
    found.append(f'Studies refused: {len(described.refused)}, listed at the end.')
  if fitted.table.same_gradient and fitted.outcome.weighting in ('paper', 'features'):
    found.append(
      'The gradient of the logit is the same for all slices, so weighing by it and '
      'standardizing each feature leaves the plain features: clusters follow what '
      'a slice looks like, not its signs of disease.'
    )
  if not fitted.table.positive.any():
    found.append('No slice is positive: there is no disease to sort.')
  if fitted.outcome.clustering.stability < 0.9:
    found.append(
      'The clusters change with the start (adjusted Rand index '
      f'{fitted.outcome.clustering.stability:.2f}): do not read them.'
    )
  return found


def key_pictures(
  fitted: kinds.Fitted, described: features.Described
) -> list[list[KeySlice]]:
  """The key slices' pictures, from the store."""
  first = np.searchsorted(fitted.table.study, np.arange(len(described.sources)))
  found: list[list[KeySlice]] = []
  for keys in fitted.key_slices:
    found.append([])
    for index in keys.tolist():
      number = int(fitted.table.study[index])
      slices = described.store.get(described.sources[number])
      place = index - int(first[number])
      found[-1].append(KeySlice(slices.pictures[place], slices.maps[place]))
  return found


def _slices(fitted: kinds.Fitted) -> dict:
  table = fitted.table
  return {
    'positive': int(table.positive.sum()),
    'negative': int((~table.positive).sum()),
    'studies': len(table.study_uids),
    'gradient_spread': (
      table.gradient_spread if np.isfinite(table.gradient_spread) else None
    ),
  }


def _clusters(fitted: kinds.Fitted) -> list[dict]:
  table, labels = fitted.table, fitted.outcome.clustering.labels
  agreement = fitted.outcome.agreement
  found = []
  for cluster, name in enumerate(fitted.model.names):
    own = labels == cluster
    found.append(
      {
        'name': name,
        'slices': int(own.sum()),
        'positive_fraction': float(table.positive[own].mean()),
        'mean_involved_fraction': float(table.involved_fraction[own].mean()),
        'known_kinds': None
        if agreement is None
        else dict(zip(agreement.kinds, agreement.counts[cluster].tolist())),
        'key_slices': [
          {
            'study_uid': table.study_uids[table.study[index]],
            'slice': int(table.slice_index[index]),
          }
          for index in fitted.key_slices[cluster].tolist()
        ],
      }
    )
  return found


def _outcome(outcome: kinds.Outcome) -> dict:
  return {
    'weighting': outcome.weighting,
    'k': outcome.k,
    'elbow_k': outcome.scan.elbow_k,
    'silhouette': outcome.silhouette,
    'scan': {
      'k': outcome.scan.k,
      'inertia': outcome.scan.inertia,
      'silhouette': outcome.scan.silhouette,
    },
    'restart_agreement': outcome.clustering.stability,
    'lowest_restart_agreement': outcome.clustering.lowest_stability,
    'truth_agreement': (
      None if outcome.agreement is None else outcome.agreement.rand_index
    ),
  }

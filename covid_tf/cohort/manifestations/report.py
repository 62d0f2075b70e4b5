"""What was found of manifestations, as files."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib

import numpy as np

from covid_tf import files
from covid_tf import version
from covid_tf.cohort import describe_studies
from covid_tf.cohort import manifestation_figures
from covid_tf.cohort import manifestation_model
from covid_tf.cohort import manifestation_weightings
from covid_tf.cohort import manifestations
from covid_tf.cohort import paper
from covid_tf.reports import figure_style
from covid_tf.reports import pages

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


def study_shares(fitted: manifestations.Fitted) -> list[StudyShares]:
  """The shares of every study of a fitted cohort."""
  table, labels = fitted.table, fitted.outcome.clustering.labels
  found = []
  for number, uid in enumerate(table.study_uids):
    own = table.study == number
    found.append(StudyShares(
        uid, int(table.positive[own].sum()),
        manifestations.shares(fitted.model.names, labels[own], table.positive[own])))
  return found


def write_fitted(
    fitted: manifestations.Fitted, described: describe_studies.Described,
    output: pathlib.Path, demo_models: bool) -> None:
  """Writes manifestations.json, manifestations.html, the model and the figures.

  Args:
    fitted: the fitted cohort.
    described: its studies.
    output: the folder.
    demo_models: whether the demo models answered; every file says so.
  """
  manifestation_model.save(fitted.model, output / 'manifestation_model.npz')
  caption = manifestation_figures.space_caption(fitted)
  if demo_models:
    caption += ' DEMO MODELS, trained on phantoms.'
  space = manifestation_figures.space_figure(
      fitted, key_pictures(fitted, described), caption)
  elbow = manifestation_figures.elbow_figure(fitted.outcome)
  figure_style.save(space, output / 'figures' / 'manifestations')
  figure_style.save(elbow, output / 'figures' / 'manifestations_elbow')
  shares = study_shares(fitted)
  found = {
      'warnings': warnings(fitted, described, demo_models),
      'demo_models': demo_models, 'models': fitted.model.models,
      'slices': _slices(fitted), 'clusters': _clusters(fitted),
      'weighting': fitted.outcome.weighting,
      'weightings': [
          _outcome(outcome) for outcome in (fitted.outcome, *fitted.others)]}
  files.write_atomically(output / 'manifestations.html', pages.render(
      'manifestations.html', found=found, paper=paper, demo_models=demo_models,
      names=fitted.model.names, same_gradient=fitted.table.same_gradient,
      meanings=manifestation_weightings.WEIGHTINGS, shares=shares, most=_MOST_LISTED,
      refused=described.refused,
      space_svg=figure_style.svg_text(space), elbow_svg=figure_style.svg_text(elbow)))
  write_json(output / 'manifestations.json', shares, described.refused, found)


def write_json(
    path: pathlib.Path, shares: Sequence[StudyShares], refused: Mapping[str, str],
    more: Mapping) -> None:
  """Writes the shares of every study, and whatever else is known."""
  content = {
      'schema_version': SCHEMA_VERSION,
      'software': f'covid-tf {version.__version__}', **more,
      'studies': [dataclasses.asdict(study) for study in shares],
      'refused': [{'study': name, 'reason': reason}
                  for name, reason in refused.items()]}
  text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
  files.write_atomically(path, text.encode() + b'\n')


def warnings(
    fitted: manifestations.Fitted, described: describe_studies.Described,
    demo_models: bool) -> list[str]:
  """What must be known before the clusters are believed."""
  found = []
  if demo_models:
    found.append('Features of the demo models, trained on phantoms: they show how this '
                 'works and say nothing of patients.')
  if described.refused:
    found.append(f'Studies refused: {len(described.refused)}, listed at the end.')
  if fitted.table.same_gradient and fitted.outcome.weighting in (
      'paper', 'features'):
    found.append(
        'The gradient of the logit is the same for all slices, so weighing by it and '
        'standardizing each feature leaves the plain features: clusters follow what '
        'a slice looks like, not what makes it ill.')
  if not fitted.table.positive.any():
    found.append('No slice is positive: there is no disease to sort.')
  if fitted.outcome.clustering.stability < 0.9:
    found.append(
        'The clusters change with the start (adjusted Rand index '
        f'{fitted.outcome.clustering.stability:.2f}): do not read them.')
  return found


def key_pictures(
    fitted: manifestations.Fitted, described: describe_studies.Described
) -> list[list[manifestation_figures.KeySlice]]:
  """The key slices' pictures, from the store."""
  first = np.searchsorted(fitted.table.study, np.arange(len(described.sources)))
  found = []
  for keys in fitted.key_slices:
    found.append([])
    for index in keys.tolist():
      number = int(fitted.table.study[index])
      slices = described.store.get(described.sources[number])
      place = index - int(first[number])
      found[-1].append(manifestation_figures.KeySlice(
          slices.pictures[place], slices.maps[place]))
  return found


def _slices(fitted: manifestations.Fitted) -> dict:
  table = fitted.table
  return {
      'positive': int(table.positive.sum()), 'negative': int((~table.positive).sum()),
      'studies': len(table.study_uids),
      'gradient_spread': (
          table.gradient_spread if np.isfinite(table.gradient_spread) else None)}


def _clusters(fitted: manifestations.Fitted) -> list[dict]:
  table, labels = fitted.table, fitted.outcome.clustering.labels
  agreement = fitted.outcome.agreement
  found = []
  for cluster, name in enumerate(fitted.model.names):
    own = labels == cluster
    found.append({
        'name': name, 'slices': int(own.sum()),
        'positive_fraction': float(table.positive[own].mean()),
        'mean_involved_fraction': float(table.involved_fraction[own].mean()),
        'known_kinds': None if agreement is None else dict(
            zip(agreement.kinds, agreement.counts[cluster].tolist())),
        'key_slices': [
            {'study_uid': table.study_uids[table.study[index]],
             'slice': int(table.slice_index[index])}
            for index in fitted.key_slices[cluster].tolist()]})
  return found


def _outcome(outcome: manifestations.Outcome) -> dict:
  return {
      'weighting': outcome.weighting, 'k': outcome.k, 'elbow_k': outcome.scan.elbow_k,
      'silhouette': outcome.silhouette,
      'scan': {'k': outcome.scan.k, 'inertia': outcome.scan.inertia,
               'silhouette': outcome.scan.silhouette},
      'restart_agreement': outcome.clustering.stability,
      'lowest_restart_agreement': outcome.clustering.lowest_stability,
      'truth_agreement': (
          None if outcome.agreement is None else outcome.agreement.rand_index)}

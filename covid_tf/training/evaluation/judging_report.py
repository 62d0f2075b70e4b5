"""evaluation.json and evaluation.html of implanted chests, with their worst slabs."""

import dataclasses
import os
import pathlib

import matplotlib.figure
import numpy as np

from covid_tf import version
from covid_tf.cohort import paper
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.statistics import roc
from covid_tf.storage import files
from covid_tf.training.evaluation import judged_figures
from covid_tf.training.evaluation import judging

JSON_NAME = 'evaluation.json'
PAGE_NAME = 'evaluation.html'
SCHEMA_VERSION = 1
_PICTURE_COLUMNS = 320
_QUALITY = 72


def write(
  judgement: judging.Judgement, subject: dict[str, str], folder: str | os.PathLike
) -> None:
  """Writes both files, each whole or not at all; earlier ones are replaced.

  Args:
    judgement: the figures.
    subject: what was judged on what, as the page shows it: title -> text.
    folder: gets the files; other files in it stay.

  Raises:
    errors.OutputError: it cannot be written.
  """
  folder = pathlib.Path(folder)
  files.write_atomically(folder / PAGE_NAME, _page(judgement, subject))
  files.write_json(folder / JSON_NAME, as_dict(judgement, subject))


def as_dict(judgement: judging.Judgement, subject: dict[str, str]) -> dict:
  """The figures as evaluation.json holds them; what is not defined is null."""
  content = {
    field.name: _plain(getattr(judgement, field.name))
    for field in dataclasses.fields(judgement)
    if field.name not in ('misses', 'false_alarms')
  }
  return {
    'schema_version': SCHEMA_VERSION,
    'software': f'covid_tf {version.__version__}',
    'subject': subject,
    **content,
  }


def _plain(value):
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.asdict(value)
  if isinstance(value, tuple):
    return [_plain(item) for item in value]
  return value


def in_words(judgement: judging.Judgement) -> list[str]:
  """The main figures, a line each, as commands print them."""
  overall = judgement.overall
  lines = [
    f'slabs: {overall.n_positive} + {overall.n_negative} of {overall.n_chests} '
    f'chests, AUC {estimate(overall.auc, 4)}, sensitivity '
    f'{_share(overall.sensitivity)}, specificity {_share(overall.specificity)}',
    f'rule: AUC {estimate(overall.rule_auc, 4)}; the network is '
    f'{estimate(overall.difference, 4, sign=True)} above it',
  ]
  lines += [
    f'{group.by} {group.name}: {group.n_positive} + {group.n_negative}, AUC '
    f'{estimate(group.auc, 4)}, rule {estimate(group.rule_auc, 4)}, sensitivity '
    f'{_share(group.sensitivity)}, specificity {_share(group.specificity)}'
    for group in judgement.groups
  ]
  if judgement.calibration is not None:
    found = judgement.calibration
    fit = (
      'not defined: wholly separated'
      if found.slope is None
      else f'{found.slope:.2f} and {found.intercept:.2f}'
    )
    lines.append(
      f'calibration at a prevalence of {found.prevalence:g}: Brier score '
      f'{found.brier:.3f}, slope and intercept {fit}'
    )
  if judgement.studies:
    lines.append(
      f'{len(judgement.studies)} implanted studies: rank correlation of score and '
      f'volume {estimate(judgement.rank_correlation, 3)}; map above its threshold in '
      f'the opacity on {_share(judgement.marked)} of the slabs found'
    )
  if judgement.skipped:
    lines.append(f'{judgement.skipped} opacities left out, since no lung held them')
  return lines


def estimate(found: judged_figures.Estimate, digits: int, sign: bool = False) -> str:
  """'0.912 (0.850 to 0.960)'."""
  if found.value is None:
    return 'not defined'
  form = f'{"+" if sign else ""}.{digits}f'
  if found.interval is None:
    return format(found.value, form)
  low, high = (format(limit, form) for limit in found.interval)
  return f'{found.value:{form}} ({low} to {high})'


def _share(share) -> str:
  return '-' if share.value is None else f'{share.value:.3f}'


def roc_figure(judgement: judging.Judgement) -> matplotlib.figure.Figure:
  """ROC curves of the network and of the rule over all labelled slabs."""
  plain = [slab for slab in judgement.slabs if not slab.condition]
  labelled = [slab for slab in plain or judgement.slabs if slab.label >= 0]
  label = np.array([slab.label for slab in labelled]) == 1
  with figures.styled():
    figure = figures.new_figure(height_inch=4.1)
    axes = None
    for name, colour, found, values in (
      (
        'network',
        figures.BLUE,
        judgement.overall.auc,
        [slab.probability for slab in labelled],
      ),
      (
        'simple rule',
        figures.ORANGE,
        judgement.overall.rule_auc,
        [slab.rule_cm2 for slab in labelled],
      ),
    ):
      scores = np.array(values)
      curve = roc.curve(scores[label], scores[~label])
      text = f'{name}, AUC {found.value:.3f}'
      if axes is None:
        axes = figures.roc_axes(figure, curve, text)
      else:
        axes.plot(
          np.append(1.0, 1 - curve.specificity),
          np.append(1.0, curve.sensitivity),
          color=colour,
          lw=1.2,
          clip_on=False,
          label=text,
        )
    assert axes is not None
    axes.legend(loc='lower right', fontsize=7)
    figures.put_caption(
      figure,
      f'ROC curves of {label.sum()} slabs with an implanted opacity and '
      f'{(~label).sum()} of the same chests as they are. The rule: cm² of lung between '
      '-700 and -100 HU after a blur of 1 mm. Dotted: chance.',
    )
    return figure


def score_figure(judgement: judging.Judgement) -> matplotlib.figure.Figure:
  """Corona score of each implanted study against the opacity in it."""
  with figures.styled():
    figure = figures.new_figure(height_inch=4.1)
    axes = figure.add_subplot()
    names = sorted({study.chest for study in judgement.studies})
    for place, name in enumerate(names):
      own = [study for study in judgement.studies if study.chest == name]
      axes.scatter(
        [study.amount_cm3 for study in own],
        [study.score_cm3 for study in own],
        s=14,
        color=f'C{place}',
        edgecolors='white',
        linewidths=0.4,
        label=name,
        clip_on=False,
        zorder=3,
      )
    most = max(max(s.amount_cm3, s.score_cm3) for s in judgement.studies)
    axes.plot([0, most], [0, most], color=figures.GREY, lw=0.7, ls=':')
    axes.set(xlabel='Opacity (cm³)', ylabel='Corona score (cm³)')
    axes.legend(loc='upper left', fontsize=7)
    figures.put_caption(
      figure,
      f'Corona score against the true volume of {len(judgement.studies)} implanted '
      f"studies. Spearman's rank correlation "
      f'{estimate(judgement.rank_correlation, 3)}. Dotted: equal.',
    )
    return figure


def _page(judgement, subject) -> bytes:
  drawn = []
  if judgement.overall.auc.value is not None:
    drawn.append(('ROC of slabs', roc_figure(judgement)))
  if judgement.studies:
    drawn.append(('Score and volume', score_figure(judgement)))
  return pages.render(
    'judgement.html',
    judgement=judgement,
    subject=subject,
    words=paper,
    estimate=estimate,
    demo_models='demo' in subject.values(),
    figures=[(title, figures.svg_text(figure)) for title, figure in drawn],
    galleries=[
      (title, [_picture(shown) for shown in gallery])
      for title, gallery in (
        ('Worst misses', judgement.misses),
        ('Worst false alarms', judgement.false_alarms),
      )
    ],
  )


def _picture(shown: judging.Shown) -> dict:
  rows, columns = shown.hu.shape
  height_mm, width_mm = (
    side * step for side, step in zip(shown.hu.shape, shown.pixel_mm)
  )
  size = (round(_PICTURE_COLUMNS * height_mm / width_mm), _PICTURE_COLUMNS)
  answer = shown.answer
  return {
    'uri': pictures.grey_uri(
      pictures.lung_window(shown.hu),
      (min(size[0], rows), min(size[1], columns)),
      _QUALITY,
    ),
    'width_mm': round(width_mm, 1),
    'height_mm': round(height_mm, 1),
    'outline': pictures.outline(shown.lesion_mask != 0, shown.pixel_mm),
    'caption': (
      f'{answer.chest}{", " + answer.condition if answer.condition else ""}, slab '
      f'{answer.slab}: probability {answer.probability:.3f}, rule '
      f'{answer.rule_cm2:.1f} cm²'
      + (f', opacity {answer.lesion_mm2 / 100:.1f} cm²' if answer.lesion_mm2 else '')
    ),
  }

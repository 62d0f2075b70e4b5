"""How score, involved lung and lung volume of one patient run in time."""

import matplotlib.figure
import matplotlib.ticker

from covid_tf.cohort import follow_up as follow_up_lib
from covid_tf.reports import figure_style

_WIDTH_INCH = 7.0
_MARKS = ('^', 's', 'v')  # Of the thirds, so that a grey print still reads.


def trend_figure(follow_up: follow_up_lib.FollowUp) -> matplotlib.figure.Figure:
  """Draws the course of the four measures that matter most, each from zero."""
  with figure_style.styled():
    figure = figure_style.new_figure(4.2, _WIDTH_INCH)
    (score, thirds), (involved, volume) = figure.subplots(2, 2)
    _line(score, follow_up, follow_up_lib.SCORE, figure_style.ORANGE, 'o')
    for measure, colour, mark in zip(
        follow_up_lib.THIRDS, figure_style.CATEGORIES, _MARKS):
      _line(thirds, follow_up, measure, colour, mark)
    thirds.legend(fontsize=7, handlelength=2)
    _line(involved, follow_up, follow_up_lib.INVOLVED, figure_style.PURPLE, 'o')
    _line(volume, follow_up, follow_up_lib.LUNG_VOLUME, figure_style.BLUE, 'o')
    for axes, title in (
        (score, 'Corona score (cm³)'), (thirds, 'Score by third of the lungs (cm³)'),
        (involved, 'Involved lung (%)'), (volume, 'Lung volume (cm³)')):
      axes.set_title(title, fontsize=8, loc='left')
      axes.set_ylim(0, max(axes.get_ylim()[1] * 1.08, 1e-3))
      _name_studies(axes, follow_up)
    figure_style.put_caption(figure, caption(follow_up), line_characters=138)
    return figure


def caption(follow_up: follow_up_lib.FollowUp) -> str:
  """What the figure shows."""
  place = 'against days since the first' if _over_days(follow_up) else (
      'in the order given')
  return (
      f'{len(follow_up.points)} studies of one patient, {place}; one measurement '
      'each, so no interval. Thirds are of the lungs\' height, their score is inside '
      'the segmented lungs. Research use only.')


def _line(axes, follow_up, measure, colour, mark):
  scale = 100 if measure.unit == '%' else 1
  axes.plot(
      _places(follow_up), [scale * measure.of(point.result)
                           for point in follow_up.points],
      marker=mark, ms=4.5, lw=1.3, color=colour, label=measure.title, clip_on=False)


def _over_days(follow_up) -> bool:
  """Whether days part the studies: of one day, they stand in the order given."""
  return follow_up.by_date and follow_up.points[-1].days > follow_up.points[0].days


def _places(follow_up) -> list[int]:
  if not _over_days(follow_up):
    return list(range(len(follow_up.points)))
  return [point.days for point in follow_up.points]


def _name_studies(axes, follow_up):
  places = _places(follow_up)
  if _over_days(follow_up):
    axes.set_xlabel('Days', labelpad=1)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
  else:
    axes.set_xlabel('Study, all of one day' if follow_up.by_date else 'Study', labelpad=1)
    axes.set_xticks(places, [str(place + 1) for place in places])
  span = (places[-1] - places[0]) or 1
  axes.set_xlim(places[0] - 0.06 * span, places[-1] + 0.06 * span)

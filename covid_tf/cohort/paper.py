"""The paper's case-level figures, to stand beside ours.

Source of all: O. Gozes, M. Frid-Adar, N. Sagie, H. Zhang, W. Ji, H. Greenspan,
"Coronavirus Detection and Analysis on Chest CT with Deep Learning", 2020.
"""

CITATION = (
  'Gozes O et al. Coronavirus Detection and Analysis on Chest CT with '
  'Deep Learning. 2020.'
)

# Section 3.2, Fig. 4: patients confirmed by RT-PCR against negative ones.
POSITIVE_PATIENTS = 109
NEGATIVE_PATIENTS = 90
AUC = 0.948
AUC_CI95 = (0.912, 0.985)

# Section 3.2: first time point of 49 patients.
SEVERE_PATIENTS = 13
NON_SEVERE_PATIENTS = 36
# In the order of the sentence. It lists severe first, so read word for word the
# severe would score lower, against the sense of the score; Fig. 4's caption lists
# non-severe first. Hence no name is given to either figure.
MEDIANS_CM3_AS_LISTED = (61.5, 227.5)
MEDIANS_NOTE = (
  'The text gives the medians 61.5 and 227.5 cm³ and lists severe first, which '
  'word for word makes the severe the lower; the caption of Fig. 4 lists '
  'non-severe first. Both are quoted, neither is assumed.'
)
FIGURE_NOTE = (
  'The caption of Fig. 4 calls panel a what the text calls panel b (box plot and '
  'ROC); the figures here are named by what they show.'
)
RANK_SUM_P_VALUE = 0.0064

# Section 3.1: held-out slices, threshold 0.5. It gives no interval, no figure for
# patients and none for the lungs.
SLICES_NORMAL = 150
SLICES_ABNORMAL = 120
SLICE_AUC = 0.994
SLICE_SENSITIVITY = 0.94
SLICE_SPECIFICITY = 0.98

# Section 3.3, Fig. 5.
POSITIVE_SLICES = 1592
POSITIVE_SLICE_PATIENTS = 110
NEGATIVE_SLICES = 701
NEGATIVE_SLICE_PATIENTS = 81
CLUSTERS = 3
KEY_SLICES_PER_CLUSTER = 4


def as_dict() -> dict:
  """The figures of detection and severity, as cohort.json holds them."""
  return {
    'source': CITATION,
    'detection': {
      'n_positive': POSITIVE_PATIENTS,
      'n_negative': NEGATIVE_PATIENTS,
      'auc': AUC,
      'auc_ci95': list(AUC_CI95),
    },
    'severity': {
      'n_severe': SEVERE_PATIENTS,
      'n_non_severe': NON_SEVERE_PATIENTS,
      'medians_cm3_as_listed': list(MEDIANS_CM3_AS_LISTED),
      'medians_note': MEDIANS_NOTE,
      'figure_note': FIGURE_NOTE,
      'rank_sum_p_value': RANK_SUM_P_VALUE,
    },
  }


# Numbers as a paper prints them.


def p_value(value: float) -> str:
  """'p = 0.0064', 'p < 0.0001'."""
  if value < 0.0001:
    return 'p < 0.0001'
  return f'p = {value:.4f}' if value < 0.01 else f'p = {value:.3f}'


def interval(limits: tuple[float, float] | None, digits: int = 3) -> str:
  """'0.912–0.985', or 'not defined' for None; 'to' where a limit is negative."""
  if limits is None:
    return 'not defined'
  low, high = (f'{limit:.{digits}f}' for limit in limits)
  return f'{low}–{high}' if limits[0] >= 0 else f'{low} to {high}'


def cubic_centimetres(value: float) -> str:
  """'61.5 cm³'."""
  return f'{value:.1f} cm³'


def percent(value: float | None) -> str:
  """'94 %', '99.7 %' where all would be said of some, or 'not defined'."""
  return 'not defined' if value is None else f'{_hundredths(value)} %'


def percent_interval(limits: tuple[float, float] | None) -> str:
  """'88–98 %', or 'not defined'."""
  if limits is None:
    return 'not defined'
  return f'{_hundredths(limits[0])}–{_hundredths(limits[1])} %'


def _hundredths(share: float) -> str:
  whole = f'{100 * share:.0f}'
  # Neither none nor all may be said of a share that is neither.
  return f'{100 * share:.1f}' if whole in ('0', '100') and share % 1 else whole

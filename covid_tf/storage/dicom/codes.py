"""Codes of what the DICOM objects hold: standard ones, and those of scheme 99COVIDTF.

Segmentation, parametric map and structured report name one thing by one code, so that
a reader can join them. docs/dicom_objects.md has the private codes as a table.
"""

from pydicom.sr import coding

# The private scheme. PS3.16 chapter 8 leaves designators that begin with 99 to
# everybody, so the scheme is declared in each object, with a UID that is its own.
SCHEME = '99COVIDTF'
SCHEME_VERSION = '1'
SCHEME_UID = '2.25.262877523195804497556638064215326481822'
SCHEME_NAME = 'covid-tf codes'
SCHEME_ORGANIZATION = 'covid-tf project'
# A longer one is no Code Value (SH) and would become a Long Code Value, which readers
# do not look for; a meaning is an LO.
MAX_VALUE_LENGTH, MAX_MEANING_LENGTH = 16, 64


def _private(value: str, meaning: str) -> coding.Code:
  if len(value) > MAX_VALUE_LENGTH or len(meaning) > MAX_MEANING_LENGTH:
    raise ValueError(
      f'a code value of at most {MAX_VALUE_LENGTH} characters and a meaning of at most '
      f'{MAX_MEANING_LENGTH} are required, found {value!r}, {meaning!r}.'
    )
  return coding.Code(value, SCHEME, meaning)


# What the Corona score counts. No standard code says as little: DCM 112001 (opacity)
# and 112120 (ground glass) are findings, this is a network's map above a threshold.
MODEL_ATTENTION = _private('MODEL-ATTENTION', 'Model attention')

# Measurements that no standard scheme has.
CORONA = _private('CORONA', 'Corona score')
CORONA_IN_LUNG = _private('CORONA-LUNG', 'Corona score inside the lungs')
INVOLVED_LUNG = _private('INVOLVED-LUNG', 'Involved share of the lung')
CASE_DETECTED = _private('CASE-DETECTED', 'Corona score above the threshold of a case')
CASE_THRESHOLD = _private(
  'CASE-THRESHOLD', 'Corona score above which a case is detected'
)
REPEATABILITY = _private('CORONA-RC', 'Repeatability coefficient of the Corona score')
RELATIVE_REPEATABILITY = _private(
  'CORONA-RC-REL', 'Relative repeatability coefficient of the Corona score'
)
LUNG_DENSITY = _private('LUNG-DENSITY', 'Density of the lung')
ZONE_GRADING = _private('ZONE-GRADING', 'Grades of zones by model attention')
ZONE_SCORE = _private('ZONE-SCORE', 'Zone score by model attention, 0 to 24')
ZONE_GRADE = _private('ZONE-GRADE', 'Grade of a zone by model attention, 0 to 4')
DENSITY_GRADING = _private('ZONE-GRADING-HU', 'Grades of zones by density')
DENSITY_SCORE = _private('ZONE-SCORE-HU', 'Zone score by density, 0 to 24')
DENSITY_GRADE = _private('ZONE-GRADE-HU', 'Grade of a zone by density, 0 to 4')
DENSE_LUNG = _private('DENSE-LUNG', 'Share of the lung in dense bins')
LOBE_GRADING = _private('LOBE-GRADING', 'Grades of lobes by model attention')
LOBE_SCORE = _private('LOBE-SCORE', 'Lobe score by model attention, 0 to 25')
LOBE_GRADE = _private('LOBE-GRADE', 'Grade of a lobe by model attention, 0 to 5')
LABEL_REGION = _private('LABEL-REGION', 'Region of a label map that was given')
LABEL_VOLUME = _private('LABEL-VOLUME', 'Volume of a label, lung or not')
UNLABELLED_LUNG = _private('UNLABELLED-LUNG', 'Lung in no region of the label map')

# All but those of densities, which `percentile` and `density_bin` make.
PRIVATE = (
  MODEL_ATTENTION,
  CORONA,
  CORONA_IN_LUNG,
  INVOLVED_LUNG,
  CASE_DETECTED,
  CASE_THRESHOLD,
  REPEATABILITY,
  RELATIVE_REPEATABILITY,
  LUNG_DENSITY,
  ZONE_GRADING,
  ZONE_SCORE,
  ZONE_GRADE,
  DENSITY_GRADING,
  DENSITY_SCORE,
  DENSITY_GRADE,
  DENSE_LUNG,
  LOBE_GRADING,
  LOBE_SCORE,
  LOBE_GRADE,
  LABEL_REGION,
  LABEL_VOLUME,
  UNLABELLED_LUNG,
)


def percentile(percent: int) -> coding.Code:
  """The Hounsfield units below which `percent` of a region's voxels lie."""
  return _private(f'HU-P{percent}', f'Percentile {percent} of the density')


def density_bin(
  name: str, from_hu: int | None = None, below_hu: int | None = None
) -> coding.Code:
  """The volume of a region's voxels with from_hu <= HU < below_hu.

  The code value holds the range and nothing else: schemes of densities may be other
  ones, and equal ranges of two schemes are one quantity.

  Args:
    name: of the bin, for the meaning; what does not fit is left out.
    from_hu: the lowest value inside; None: no bound, and below_hu is one.
    below_hu: the lowest value above it; None: no bound.
  """
  if from_hu is None and below_hu is None:
    raise ValueError('from_hu or below_hu is required, found neither.')
  if from_hu is None:
    value, words = f'HU<{below_hu}', f'below {below_hu} HU'
  elif below_hu is None:
    value, words = f'HU>={from_hu}', f'from {from_hu} HU'
  else:
    value, words = f'HU{from_hu}:{below_hu}', f'{from_hu} to below {below_hu} HU'
  words = f'Lung of {words}'
  room = MAX_MEANING_LENGTH - len(words) - len(' ()')
  # A backslash would begin a second value, a control character is no text.
  legal = ''.join(one if one.isprintable() and one != '\\' else '_' for one in name)
  return _private(value, f'{words} ({legal[:room]})')


# Standard codes.
LUNG = coding.Code('39607008', 'SCT', 'Lung')
ANATOMICAL_STRUCTURE = coding.Code('91723000', 'SCT', 'Anatomical Structure')
# Category of the model attention: CID 7150 has no code for a model's answer.
MORPHOLOGICALLY_ABNORMAL = coding.Code(
  '49755003', 'SCT', 'Morphologically Abnormal Structure'
)
RIGHT = coding.Code('24028007', 'SCT', 'Right')
LEFT = coding.Code('7771000', 'SCT', 'Left')
APICAL = coding.Code('281392002', 'SCT', 'Upper zone of lung')
MIDDLE = coding.Code('281393007', 'SCT', 'Middle zone of lung')
BASAL = coding.Code('281394001', 'SCT', 'Lower zone of lung')
LOBES = {
  'right_upper_lobe': coding.Code('45653009', 'SCT', 'Upper lobe of lung'),
  'right_middle_lobe': coding.Code('72481006', 'SCT', 'Middle lobe of right lung'),
  'right_lower_lobe': coding.Code('90572001', 'SCT', 'Lower lobe of lung'),
  'left_upper_lobe': coding.Code('45653009', 'SCT', 'Upper lobe of lung'),
  'left_lower_lobe': coding.Code('90572001', 'SCT', 'Lower lobe of lung'),
}
VOLUME = coding.Code('118565006', 'SCT', 'Volume')
SUM_OF_VOXELS = coding.Code('126030', 'DCM', 'Sum of segmented voxel method for volume')
ATTENUATION = coding.Code('112031', 'DCM', 'Attenuation Coefficient')
MEAN = coding.Code('373098007', 'SCT', 'Mean')
DETECTED = coding.Code('260373001', 'SCT', 'Detected')
NOT_DETECTED = coding.Code('260415000', 'SCT', 'Not detected')
# The quantity of the parametric map, and what answered.
GRAD_CAM = coding.Code('130403', 'DCM', 'Gradient-weighted class activation')
ARTIFICIAL_INTELLIGENCE = coding.Code('123110', 'DCM', 'Artificial Intelligence')
# Units. UCUM has no share but the one of no unit.
CM3 = coding.Code('cm3', 'UCUM', 'cubic centimeter')
PERCENT = coding.Code('%', 'UCUM', 'percent')
NO_UNITS = coding.Code('1', 'UCUM', 'no units')
HOUNSFIELD = coding.Code("[hnsf'U]", 'UCUM', 'Hounsfield unit')

"""Small cohorts on disk: results as `covid-tf score` leaves them, and labels."""

import csv
import json
import pathlib

MODELS = (
  {'name': 'lungs', 'version': 1, 'card_sha256': 'a' * 64},
  {'name': 'classifier', 'version': 1, 'card_sha256': 'b' * 64},
)


def write_result(
  root: pathlib.Path, study_uid: str, score: float, folder: str = '', **changes
) -> pathlib.Path:
  """Writes one result.json below `root`; `changes` replace its fields."""
  path = root / (folder or study_uid) / 'result.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(
    json.dumps(
      {
        'schema_version': 1,
        'study_uid': study_uid,
        'series_uid': f'{study_uid}.1',
        'patient_key': None,
        'corona_score_cm3': score,
        'involved_lung_fraction': min(1.0, score / 1000),
        'slice_probability': [0.1, 0.9],
        'positive_slices': [1],
        'thresholds': {
          'slice_probability': 0.5,
          'map': 0.6,
          'case_corona_score_cm3': None,
        },
        'models': list(MODELS),
      }
      | changes
    )
  )
  return path


def measured(zone: int, mean_hu: float, dense: float) -> dict:
  """Fields of schema 3: zone scores and densities, of both as much as cohorts read."""
  return {
    'schema_version': 3,
    'zone_score': {'total': zone},
    'zone_score_by_density': {'total': zone + 1},
    'densities': {
      'regions': {
        'lungs': {
          'mean_hu': mean_hu,
          'low_attenuation_share': 0.02,
          'bin_shares': {'covid': {'ground_glass': dense, 'consolidation': dense / 2}},
        }
      }
    },
  }


def write_labels(
  path: pathlib.Path, rows, header='study_uid,patient_id,covid'
) -> pathlib.Path:
  """Writes a label file from rows of cells."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(header.split(','))
    writer.writerows(rows)
  return path


def write_cohort(
  root: pathlib.Path, positive, negative, severity=()
) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes results with the given scores and their labels.

  Args:
    root: an empty folder.
    positive: scores of patients with disease.
    negative: scores of those without.
    severity: grades of the first positive patients.

  Returns:
    (folder of results, label file).
  """
  rows = []
  for covid, scores in ((1, positive), (0, negative)):
    for i, score in enumerate(scores):
      uid = f'1.2.{covid}.{i}'
      write_result(root / 'results', uid, float(score), folder=f'site{i % 3}/{uid}')
      grade = severity[i] if covid and i < len(severity) else ''
      rows.append((uid, f'Patient-{covid}-{i}', covid, grade))
  labels = write_labels(
    root / 'labels.csv', rows, 'study_uid,patient_id,covid,severity'
  )
  return root / 'results', labels

"""Seconds for the statistics of a large cohort and the clustering of the paper's size.

  python tools/benchmarks/cohort_statistics.py [--json]

The scores and features are drawn, not measured: only their number matters here. The
figures are

  statistics_seconds   1,000 patients: ROC, DeLong, 2,000 bootstrap draws, operating
                       points, paired comparison, severity; from results in memory
  bootstrap_seconds    the bootstrap alone
  bootstrap_slow_ratio a loop over scikit-learn's roc_auc_score / the bootstrap
                       here, each for as many draws
  clustering_seconds   2,293 x 2,048 features: k-means for k = 1 to 10 with
                       silhouettes, ten restarts at the elbow, PCA
  …_cpu_seconds        of the process, for machines that are busy with other things
"""

import argparse
import json
import time

import numpy as np
import sklearn.metrics

from covid_tf import streams
from covid_tf.cohort import labels
from covid_tf.cohort import paper
from covid_tf.cohort import results
from covid_tf.cohort.accuracy import experiments
from covid_tf.cohort.manifestations import clusters
from covid_tf.statistics import roc

_PATIENTS = 1000
_DRAWS = 2000
_LOOPED_DRAWS = 50  # Of the slow way; its seconds are scaled up.
_FEATURES = 2048
_SLICES = paper.POSITIVE_SLICES + paper.NEGATIVE_SLICES


def draw_patients(rng: np.random.Generator) -> list[labels.Patient]:
  """Half with disease, all of these graded."""
  patients = []
  for i in range(_PATIENTS):
    covid = i % 2 == 0
    score = float(rng.gamma(1.2, 120)) if covid else float(rng.gamma(0.5, 20))
    grade = ('severe' if score > rng.gamma(2, 90) else 'non-severe') if covid else None
    patients.append(
      labels.Patient(f'1.2.{i}', covid, grade, {results.CORONA_SCORE: score})
    )
  return patients


def time_statistics(rng: np.random.Generator) -> dict[str, float]:
  """Times detection and severity, and the bootstrap two ways."""
  patients = draw_patients(rng)
  second = {
    patient.study_uid: patient.scores[results.CORONA_SCORE] * rng.uniform(0.5, 2)
    for patient in patients
  }
  start, cpu_start = time.perf_counter(), time.process_time()
  experiments.detect(
    patients, experiments.DetectionOptions(bootstrap_draws=_DRAWS), second, 'second'
  )
  experiments.grade_severity(patients)
  statistics = time.perf_counter() - start
  statistics_cpu = time.process_time() - cpu_start
  positive, negative = (
    np.array(
      [
        patient.scores[results.CORONA_SCORE]
        for patient in patients
        if patient.covid == covid
      ]
    )
    for covid in (True, False)
  )
  start = time.perf_counter()
  roc.bootstrap_interval(positive, negative, _DRAWS)
  bootstrap = time.perf_counter() - start
  truth = np.repeat([1, 0], [len(positive), len(negative)])
  start = time.perf_counter()
  for _ in range(_LOOPED_DRAWS):
    sklearn.metrics.roc_auc_score(
      truth,
      np.concatenate(
        [rng.choice(positive, len(positive)), rng.choice(negative, len(negative))]
      ),
    )
  looped = (time.perf_counter() - start) / _LOOPED_DRAWS * _DRAWS
  return {
    'statistics_seconds': statistics,
    'statistics_cpu_seconds': statistics_cpu,
    'bootstrap_seconds': bootstrap,
    'bootstrap_slow_ratio': looped / bootstrap,
  }


def time_clustering(rng: np.random.Generator) -> dict[str, float]:
  """Times the scan over k, the restarts and the PCA."""
  features = rng.gamma(1, 1, (_SLICES, _FEATURES)).astype(np.float32)
  features[:800] += rng.normal(0, 0.5, _FEATURES)
  features[800 : paper.POSITIVE_SLICES] += rng.normal(0, 0.5, _FEATURES)
  start, cpu_start = time.perf_counter(), time.process_time()
  points = clusters.fit_scaler(features, per_feature=True).apply(features)
  scan = clusters.scan(points)
  clusters.cluster(points, scan.elbow_k)
  clusters.fit_plane(points, seed=0)
  return {
    'clustering_seconds': time.perf_counter() - start,
    'clustering_cpu_seconds': time.process_time() - cpu_start,
    'clustering_elbow_k': scan.elbow_k,
  }


def main() -> None:
  """Runs both and prints the figures."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--json', action='store_true', help='figures as one JSON line')
  arguments = parser.parse_args()
  rng = np.random.default_rng(0)
  figures = time_statistics(rng) | time_clustering(rng)
  print(f'{"figure":24} {"value":>10}')
  for name, value in figures.items():
    print(f'{name:24} {value:10.2f}')
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()

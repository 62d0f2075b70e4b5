"""COVID-19 opacities on chest CT: found, localized in 3D, measured in cm³.

Importing this package needs no TensorFlow; only `load_models` brings it in.

  volume = covid_tf.read_ct('study/')
  with covid_tf.connect('localhost:8500') as models:
    result = covid_tf.analyze(volume, models)
  print(result.corona_score_cm3)
"""

import importlib

from covid_tf.version import __version__

# Public name -> its module. Each is imported when it is first asked for, so that
# a client that only reads CT waits for neither gRPC nor SciPy.
_HOMES = {
  'CTReadError': 'covid_tf.errors',
  'CTVolume': 'covid_tf.volume',
  'CaseResult': 'covid_tf.results',
  'CovidTFError': 'covid_tf.errors',
  'LabelMap': 'covid_tf.analysis.label_regions',
  'ModelError': 'covid_tf.errors',
  'NoLungsError': 'covid_tf.errors',
  'Thresholds': 'covid_tf.results',
  'analyze': 'covid_tf.analysis.pipeline',
  'connect': 'covid_tf.predictors',
  'load_models': 'covid_tf.predictors',
  'read_ct': 'covid_tf.readers',
  'rescore': 'covid_tf.analysis.rescoring',
}

__all__ = ('__version__', *_HOMES)


def __getattr__(name: str):
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
  return sorted(__all__)

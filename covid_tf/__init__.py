"""COVID-19 opacities on chest CT: found, localized in 3D, measured in cm³.

Importing this package needs no TensorFlow; only `load_models` brings it in.

  volume = covid_tf.read_ct('study/')
  with covid_tf.connect('localhost:8500') as models:
    result = covid_tf.analyze(volume, models)
  print(result.corona_score_cm3)
"""

from covid_tf.errors import CovidTFError
from covid_tf.errors import CTReadError
from covid_tf.errors import ModelError
from covid_tf.errors import NoLungsError
from covid_tf.pipeline import analyze
from covid_tf.predictors import connect
from covid_tf.predictors import load_models
from covid_tf.readers import read_ct
from covid_tf.results import CaseResult
from covid_tf.results import Thresholds
from covid_tf.version import __version__
from covid_tf.volume import CTVolume

__all__ = (
    'CTReadError',
    'CTVolume',
    'CaseResult',
    'CovidTFError',
    'ModelError',
    'NoLungsError',
    'Thresholds',
    'analyze',
    'connect',
    'load_models',
    'read_ct',
    '__version__',
)

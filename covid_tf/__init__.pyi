"""The public names, for editors and type checkers; __init__.py imports them lazily."""

from covid_tf.analysis.label_regions import LabelMap as LabelMap
from covid_tf.analysis.pipeline import analyze as analyze
from covid_tf.analysis.rescoring import rescore as rescore
from covid_tf.errors import CovidTFError as CovidTFError
from covid_tf.errors import CTReadError as CTReadError
from covid_tf.errors import ModelError as ModelError
from covid_tf.errors import NoLungsError as NoLungsError
from covid_tf.errors import OutputError as OutputError
from covid_tf.errors import UsageError as UsageError
from covid_tf.predictors import connect as connect
from covid_tf.predictors import load_models as load_models
from covid_tf.readers import read_ct as read_ct
from covid_tf.results import CaseResult as CaseResult
from covid_tf.results import Thresholds as Thresholds
from covid_tf.storage.result_folders import load_result as load_result
from covid_tf.storage.result_folders import results_table as results_table
from covid_tf.version import __version__ as __version__
from covid_tf.volume import CTVolume as CTVolume

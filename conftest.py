"""What every test shares: flags, TensorFlow's kernels, helpers, draws that repeat.

Property tests draw the same examples at every run, so that one change is judged as
another. To search for new failures, give pytest --hypothesis-profile=search.
"""

import os
import pathlib
import sys

from absl import flags
import hypothesis

# No file of the person who runs the tests.
os.environ['COVID_TF_CONFIG'] = os.devnull
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')  # As the commands set it.

flags.FLAGS.mark_as_parsed()  # absl's test helpers ask for it.

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'tests' / 'support'))

# Machines are busy at times: no deadlines, and no failure of a test whose examples take
# long to draw.
_PATIENT = {
  'deadline': None,
  'suppress_health_check': (hypothesis.HealthCheck.too_slow,),
}
hypothesis.settings.register_profile('repeatable', derandomize=True, **_PATIENT)
hypothesis.settings.register_profile(
  'search', derandomize=False, max_examples=1000, **_PATIENT
)
hypothesis.settings.load_profile('repeatable')

"""What can go wrong, by whose fault it is; the command line maps each to a status."""


class CovidTFError(Exception):
  """Base of every error raised on purpose; its text is fit for a user.

    try:
      result = covid_tf.analyze('study/')
    except covid_tf.CovidTFError as error:
      print(error)

  The text says which file or argument, what was required, what was found and
  what to do. It never holds a patient's name, ID or birth date.
  """

  exit_status = 1


class UsageError(CovidTFError):
  """An argument, a flag or a file that the user wrote is wrong.

  try:
    volume = covid_tf.CTVolume.from_array(hu, spacing_mm=(5, -0.7, 0.7))
  except covid_tf.UsageError as error:
    print(error)  # Which argument, what is required, what was found.
  """

  exit_status = 2


class StudyRefusedError(CovidTFError):
  """This study cannot be measured; others may be."""

  exit_status = 3


class CTReadError(StudyRefusedError):
  """The files are not a CT volume whose millimetres and HU can be trusted.

  try:
    volume = covid_tf.read_ct('study/')
  except covid_tf.CTReadError as error:
    print(error)  # What is wrong, where, and what to do.
  """


class NoLungsError(StudyRefusedError):
  """The volume shows too little lung (200 cm³) to be scored.

  try:
    result = covid_tf.analyze(volume)
  except covid_tf.NoLungsError:
    result = None  # An abdomen, or a part of a chest.
  """


class ModelError(CovidTFError):
  """A model or a model server failed, is unreachable or is not ours.

  try:
    models = covid_tf.connect('localhost:8500')
  except covid_tf.ModelError as error:
    print(error)
  """

  exit_status = 4


class ModelVersionChangedError(ModelError):
  """The server switched to another model version in the middle of a study."""


class PACSError(CovidTFError):
  """A PACS cannot be reached, refuses, or answers what it must not."""

  exit_status = 4


class OutputError(CovidTFError):
  """Results cannot be written: no space, no permission, or a file in the way.

  try:
    result.save('result/', volume)
  except covid_tf.OutputError as error:
    print(error)  # Nothing is there under its final name.
  """

  exit_status = 5


class ClusterError(CovidTFError):
  """Worker processes or a scheduler cannot be started, reached or kept."""

  exit_status = 4


def how_to_install(extra: str) -> str:
  """What to type for an extra of ours, from a checkout and with a wheel, in words."""
  return (
    f"pip install '.[{extra}]' in a checkout of covid_tf, "
    f"pip install 'FILE.whl[{extra}]' of its wheel"
  )

"""What can go wrong, by whose fault it is; the command line maps each to a status."""


class CovidTFError(Exception):
  """Base of every error raised on purpose; its text is fit for a user.

  The text says which file or argument, what was required, what was found and
  what to do. It never holds a patient's name, ID or birth date.
  """

  exit_status = 1


class UsageError(CovidTFError):
  """An argument, a flag or a file that the user wrote is wrong."""

  exit_status = 2


class StudyRefusedError(CovidTFError):
  """This study cannot be measured; others may be."""

  exit_status = 3


class CTReadError(StudyRefusedError):
  """The files are not a CT volume whose millimetres and HU can be trusted."""


class NoLungsError(StudyRefusedError):
  """The volume shows too little lung to be scored."""


class ModelError(CovidTFError):
  """A model or a model server failed, is unreachable or is not ours."""

  exit_status = 4


class ModelVersionChangedError(ModelError):
  """The server switched to another model version in the middle of a study."""


class OutputError(CovidTFError):
  """Results cannot be written: no space, no permission, or a file in the way."""

  exit_status = 5


class ClusterError(CovidTFError):
  """Worker processes or a scheduler cannot be started, reached or kept."""

  exit_status = 4

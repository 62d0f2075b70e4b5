"""One module a command of `covid-tf`: `add_arguments(parser)` and `run(args)`."""

import importlib
import types

# Command -> its line in the help. The module of the same name is imported only
# when it is called: `covid-tf --help` waits for no library.
COMMANDS = {
  'score': 'score one study: result.json, report.html, map and mask',
  'rescore': 'score a result again with a corrected mask, slices or thresholds',
  'viewer': 'the page to look through a stored result: three planes and HU',
  'dicom': 'DICOM objects of a result, on the slices of its CT',
  'inspect': 'geometry and HU of a study, or why it is refused',
  'serve': "serve models over TF Serving's gRPC protocol",
  'check': 'ask a server, or models of a folder, whether they compute right',
  'demo': 'the whole path on a phantom cohort, offline',
  'cohort': 'ROC, severity and figures over many results',
  'compare': 'one patient over time',
  'review': 'a contact sheet of many results, and a table to accept or reject them',
  'manifestations': 'cluster slices into kinds of disease',
  'batch': 'score an archive, every study exactly once',
  'node': 'score the studies that it is sent, and send the objects on',
  'echo': 'ask a PACS whether it is there',
  'fetch': 'a study from a PACS to a folder, whole or not at all',
  'send': 'DICOM objects of a result to a PACS',
  'completion': 'a script that completes command lines in bash, zsh or fish',
}


def module(name: str) -> types.ModuleType:
  """Imports the module of a command."""
  return importlib.import_module(f'{__name__}.{name}')

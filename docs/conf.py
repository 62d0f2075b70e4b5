"""Sphinx's configuration. The source folder is the checkout: `bash tools/docs.sh`.

Pages link to each other as files do, so that the same links work in an editor, on a
code host and on the site, also to README.md and serving/README.md.
"""

import importlib
import os
import pathlib
import pkgutil
import re
import sys

from docutils import nodes
from docutils import statemachine
from docutils.parsers import rst
from sphinx.util import nodes as sphinx_nodes

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
# Kernels of the tutorials inherit these; a note of TensorFlow is no output of theirs.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')
os.environ['PYTHONPATH'] = str(_ROOT)
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')  # As the commands set it.

from covid_tf.version import __version__  # noqa: E402

project = 'covid_tf'
author = 'the authors of covid_tf'
copyright = author
release = version = __version__
language = 'en'
root_doc = 'docs/index'
_PAGES = (
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'README.md',
  'SECURITY.md',
  'docs',
  'serving',
)
include_patterns = [name if '.' in name else f'{name}/**' for name in _PAGES]
exclude_patterns = [path.name for path in _ROOT.iterdir() if path.name not in _PAGES]

extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx_copybutton',
]

html_theme = 'furo'
html_title = f'covid_tf {__version__}'
html_extra_path = ['_extra']
html_static_path = ['_static']
html_css_files = ['site.css']
html_show_sphinx = False
html_copy_source = False
pygments_style = 'default'
pygments_dark_style = 'monokai'

# Links are those of files: GitHub's names of headings, and files for download.
myst_heading_anchors = 4
myst_enable_extensions = ['attrs_inline']
# Lines of a shell in a tutorial; a public name has two entries, one of which is taken.
suppress_warnings = ['misc.highlighting_failure', 'ref.python']

nb_execution_mode = 'cache'
nb_execution_timeout = 600  # Of a cell, on a machine that does much else.
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_execution_cache_path = os.environ.get('COVID_TF_NOTEBOOK_CACHE', '')
copybutton_exclude = '.linenos, .gp, .go'

# Docstrings are Google's, with types in the signatures alone.
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_default_options = {'members': True, 'show-inheritance': True}
add_module_names = False
default_role = 'code'
python_maximum_signature_line_length = 72
# Every name of ours in a docstring or a type must be one that the reference explains.
# Other libraries' are not looked up: the build is offline.
nitpicky = True
_OTHERS = r'(?!covid_tf\.|errors\.)[A-Za-z_]\w*(\.\w+)+.*'
_PARTS = r'\w+\[\w+'  # Of a type in brackets, cut at a comma.
_PRIVATE = r'covid_tf\.((\w+\.)*_\w+|(sessions|commands|demo)\..*)'
# In types all names have dots; a bare one is a word of a sentence, but for an error.
_WORDS = r'(?!\w*Error$)[^.]+|.* .*'
nitpick_ignore_regex = [
  ('py:.*', _WORDS),
  ('py:.*', _OTHERS),
  ('py:.*', _PRIVATE),
  ('py:.*', _PARTS),
]


class Modules(rst.Directive):
  """`.. modules:: covid_tf.readers`: every module of a package, by its docstrings."""

  required_arguments = 1

  def run(self) -> list[nodes.Node]:
    """A section for each module, in the order of their names."""
    package = importlib.import_module(self.arguments[0])
    found = pkgutil.walk_packages(package.__path__, f'{package.__name__}.')
    names = [module.name for module in found if not module.ispkg]
    lines = []
    for name in names:
      lines += [name, '-' * len(name), '', f'.. automodule:: {name}', '']
    section = nodes.section()
    section.document = self.state.document
    source = statemachine.StringList(lines, source=package.__name__)
    self.state.nested_parse(source, self.content_offset, section, match_titles=True)
    return section.children


class PublicNames(rst.Directive):
  """`.. public-names::`: what `import covid_tf` gives, each by its docstring."""

  def run(self) -> list[nodes.Node]:
    """An entry for each name, in the order of `covid_tf.__all__`."""
    package = importlib.import_module('covid_tf')
    lines = []
    for name in package.__all__:
      if not name.startswith('__'):
        kind = 'class' if isinstance(getattr(package, name), type) else 'function'
        lines += [f'.. auto{kind}:: covid_tf.{name}', '']
    block = nodes.container()
    source = statemachine.StringList(lines, source='covid_tf')
    self.state.nested_parse(source, self.content_offset, block)
    return block.children


def _fields_of_several(app, what, name, obj, options, lines):
  """`a, b: text` of Args as `a,b: text`, or Sphinx takes a for a type."""
  _mark_examples(lines)
  for at in reversed(range(len(lines) - 1)):
    if re.match(r'\s+\w+(, \w+)*,$', lines[at]):  # Names that go on.
      lines[at : at + 2] = [f'{lines[at]} {lines[at + 1].strip()}']
  for at, line in enumerate(lines):
    if found := re.match(r'(\s+)(\w+(?:, \w+)+):(?= |$)', line):
      lines[at] = found[1] + found[2].replace(', ', ',') + line[found.end() - 1 :]
    if lines[at].count('*') % 2 and '`' not in lines[at]:
      lines[at] = lines[at].replace('*', r'\*')  # Of a pattern, no emphasis.


def _mark_examples(lines):
  """Indented lines after a paragraph of a docstring are code."""
  before = ''
  for at, line in enumerate(lines):
    if re.match(r'[A-Z]\w+:$', line):  # Args:, Attributes: and the like.
      return
    if line.startswith('  ') and not lines[at - 1] and before[:1].strip():
      lines[at:at] = ['::', '']
      return
    before = line or before


def _skip(app, what, name, obj, skip, options):
  """Fields of a named tuple without a text of their own; what matplotlib adds."""
  if str(getattr(obj, '__module__', '')).startswith('matplotlib'):
    return True
  return True if (obj.__doc__ or '').startswith('Alias for field number') else None


def _resolve(app, env, node, contnode):
  """A link for a name as docstrings have it: `CTReadError`, `errors.ModelError`."""
  target = node.get('reftarget', '')
  if node.get('refdomain') != 'py' or target.startswith('covid_tf.'):
    return None
  known = env.domains['py'].objects
  ends = {name for name in known if name.endswith(f'.{target}')}
  # A public name stands on two pages: its module's is the one that has everything.
  ends = {name for name in ends if name.count('.') > 1} or ends
  if len(ends) != 1:
    return None
  place = known[ends.pop()]
  return sphinx_nodes.make_refnode(
    app.builder, node['refdoc'], place.docname, place.node_id, contnode
  )


def setup(app) -> None:
  """Called by Sphinx."""
  app.add_directive('modules', Modules)
  app.add_directive('public-names', PublicNames)
  app.connect('autodoc-process-docstring', _fields_of_several, priority=400)
  app.connect('autodoc-skip-member', _skip)
  app.connect('missing-reference', _resolve)

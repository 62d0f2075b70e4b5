"""Marks absl's flags as parsed, so that its test helpers work under pytest."""

from absl import flags

flags.FLAGS.mark_as_parsed()

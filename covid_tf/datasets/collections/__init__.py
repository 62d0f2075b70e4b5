"""One importer a file: a collection's folder to a list of studies. No TensorFlow.

Each has `list_studies(folder, ...)`, which looks at names and label files only and
refuses what does not fit together before any slice is read or written. A study is
read when its turn comes, so a collection of any size needs the memory of one study.
"""

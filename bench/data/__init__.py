"""Data sets as uint8 images, checked, split, and binarized the same way for every variant.

Each module imports only from those above it (`tests/test_imports.py`):

- `unit`: that of a table's columns, taken out before training and put back.
- `splits`: the names of the three splits, and how one table of images becomes three.
- `subset`: some of many images, at random.
- `binarization`: bytes to floats, fixed binarizations, and the fresh one of every training step.
- `files`: published files, found on disk or downloaded, and verified.
- `synthetic`: the model that the data set `ppca` is drawn from.
- `sources`: the registry of data sets, `SOURCES`, and their readers.
- `naming`: what the arrays of a user's file are, by their names.
- `images`: a folder of image files.
- `formats`: the registry of the user's formats, `FORMATS`, and their readers.
- `traps`: scales and copies that make numbers meaningless.
- `own`: data of the user's own, checked, from a path.
- `dataset`: `Dataset`, and `load`, which makes one from a name or a path.
- `corruptions`: the registry of corruptions, `CORRUPTIONS`, and images of another kind.
- `training_set`: the training images of one run: cut, repeated or augmented.
"""

"""The grid: what is done already, what is next, what failed. It knows no variant and no question.

- `contract`: what it and a question agree on;
- `tasks`: a grid's tasks, and the worker process that does one;
- `tuning`: how learning rates and hyperparameters are chosen by validation; `recorded`: what was
  chosen before;
- `runner`: executes a grid to its end; `outcome`: what came of it, as rows;
- `store`, `fingerprint`: finished work on disk, and its keys;
- `survey`: what is done already; `cluster`, `remote`: the parent's and the worker's side of Dask;
- `progress`: what a person sees meanwhile; `environment`: where the numbers were made.
"""

TUNING, FAILURE = "tuning", "failure"
"""Names of the rows that come from the grid itself, where a question's name stands in others."""
TRAINING = "training"
"""What the runs of the tables are trained for, where it is said where the time went."""

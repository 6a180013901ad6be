"""Numbers that others have published, made again under their conditions: `make validate`.

One file a row in `rows/`: its conditions are options of `python -m bench run`, beside the number,
its source and how far ours may be from it. `measure.py` evaluates a trained run, `report.py` makes
the tables, `closed_forms.py` has what theory gives.
"""

"""How fast is it? Timed apart from the grid, by pytest-benchmark, beside the machine's own limit.

- `actions`: what is timed, and the bounds beside it;
- `cases/`: the pytest-benchmark cases; `run_cases`: runs them into `throughput.json`;
- `fresh`: what a process that has just started takes; `parts`: where a compiled step's time goes;
- `rivals`: other libraries' steps, an optional extra that `cases/test_peers.py` times;
- `files`, `timings`: that file, and its cases as a table; `report`, `growth`, `peers`: their
  sections.
"""

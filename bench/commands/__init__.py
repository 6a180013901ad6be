"""What each command does, and what of its options is checked first.

- `limits`, `arguments`: what numbers may be; words of a command line or a file made options, and
  back;
- `contestants`, `configuration`: the variants that were asked for; all else that was, made a grid;
- `run` (and `tune`), `report`, `throughput`, `validation`, `gpu_check`, `check`, `new_variant`: a
  command each;
- `finished`: the commands on what is finished, done by `compare`, `listing` and `apply`.
"""

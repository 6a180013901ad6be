"""Everything that only a GPU can show, in one command of ten minutes; rehearsed on a CPU.

- `command`: shares the time among the steps, each in a process of its own, and writes the log;
- `steps`: what is shown, in order of value.
"""

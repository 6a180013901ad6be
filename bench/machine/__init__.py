"""Files, processes, signals and the terminal: what any program has to do with them.

- `storage`: files that are whole or not there at all, and their locks; `archives`: files unpacked;
- `places`: where the project lies, and paths that a user names;
- `processes`, `stopping`: workers, and how a signal ends them;
- `vector_instructions`: how fast matrix products are;
- `console`: where every command prints.
"""

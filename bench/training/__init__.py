"""One run: `loop` trains it, by the `step`, which is `compiled` where that pays.

`stacked` trains all seeds of a variant at once, on a GPU. `batches`, `schedules` and `optimizers`
are what a step is given.
"""

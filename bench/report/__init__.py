"""From stored rows to tables, claims, figures and pages; nothing here computes on a model.

    from bench.report import rows
    frame = rows.read("results/mnist/cpu")

- `rows`: the schema of everything measured, its writer and reader;
- `results`: a folder of results, read and stored;
- `table`, `claims`, `figure`: what a question's `report.py` is made of;
- `section`: what it gives to the page; `style`: names and colours;
- `page`: the pages people read.
"""

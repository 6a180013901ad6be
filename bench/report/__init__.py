"""From stored rows to tables, claims, figures and pages; nothing here computes on a model.

    from bench.report import rows
    frame = rows.read("results/mnist/cpu")

- `rows`: the schema of everything measured, its writer and reader;
- `results`: a folder of results, read and stored;
- `table`, `claims`, `figure`: what a question's `report.py` is made of;
- `section`: what it gives to the page; `style`: names and colours; `estimators`: what reports of
  noise share;
- `answers`: a folder with every question answered; `page_cache`: answered before, where nothing has
  changed; `provenance`: where its numbers were made; `lecture_notes`: what lecture notes state;
- `drawing`, `embedding`: charts as PNG, and inside the page; `screen`: a table for the terminal;
- `page`: the pages people read; `workers`, `preloaded`: the processes that answer and draw.
"""

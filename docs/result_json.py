"""Writes docs/result_json.md, every field of result.json, search.json and compare.json: `python docs/result_json.py`.

The fields, their types and what they are come from the records in sartor.run; a test says when the page is out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sartor.run import comparison, result
from sartor.run.schema import page as schema_page

PAGE = Path(__file__).with_name("result_json.md")
EXAMPLE = Path(__file__).with_name("result_json_example.json")
WIDTH = 110
INTRO = f"""\
All that a job has found is in one JSON file in its run folder, written at once as a whole; tables and pages are made of
it and of the journals beside it. `sartor fit`, `search` and `compare` print it with `--json`. `make docs` writes this
page from the code.

The schema is number {result.VERSION} of `result.json` and `search.json`, number {comparison.VERSION} of `compare.json`.
A file has its number in `version`; sartor refuses one of another number with a line that says so. Fields may be added
without a new number: a reader should pass over those that it does not know. What has no value is null; a number
that is not finite is "nan", "inf" or "-inf"; shares, such as
accuracies, are in [0, 1]; intervals are at 95 %. A metric says itself whether more or less of it is better (`goal`). In
Python, `sartor.run.result.read_result(folder)` gives the same as typed records, with the winner, its rival and the
worst verdict worked out."""
RESULT = """\
Of `sartor fit`. This is what a fit of a few seconds has left, whole but for the versions and the machine in
`environment`:

```json
{example}
```

What is delivered at the first point of the budget is `points[0].searched` or `points[0].uniform`, as
`points[0].delivered` says:

    jq -r '.points[] | "\\(.delivered) \\(.sentence)"' runs/digits/result.json

The trials of the search are not in it, they are in `search/journal.jsonl`, one line each."""
SEARCH = """\
Of `sartor search`: architectures with modelled costs; nothing is trained in full or measured. Its other records are
those of a result."""
COMPARE = """\
Of `sartor compare`: strategies by the name that they go by, each with its answers, one per seed. Its other records are
those of a result."""


def lines(value: Any, indent: str = "") -> str:
    """JSON in which what is short stands on one line."""
    short = json.dumps(value)
    if len(indent) + len(short) <= WIDTH or not isinstance(value, dict | list) or not value:
        return short
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(k)}: {lines(v, inner)}" for k, v in value.items()]
    else:
        parts = [f"{inner}{lines(v, inner)}" for v in value]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([opened, ",\n".join(parts), indent + closed])


def current() -> str:
    """The page as the records are now."""
    example = lines(json.loads(EXAMPLE.read_text(encoding="utf-8")))
    return schema_page(
        "Results as JSON",
        INTRO,
        [
            (result.FILE, result.Result, RESULT.replace("{example}", example)),
            (result.SEARCH_FILE, result.Searched, SEARCH),
            (comparison.FILE, comparison.Comparison, COMPARE),
        ],
    )


if __name__ == "__main__":
    PAGE.write_text(current(), encoding="utf-8")

"""Rows of judged responses as a table, for tests that write rows."""

from collections.abc import Iterable

from jaxalign.safety.judged import JudgedRow, JudgedTable, columns_as_table


def judged_table(rows: Iterable[JudgedRow]) -> JudgedTable:
    """Return rows, in any order, as columns, as `judged_tables` does with the records of a file."""
    columns = list(zip(*rows, strict=True)) or [()] * len(JudgedRow._fields)
    ids, categories, groups, samples, judgements, states = columns
    known = [None if one is None or one.missing is not None else one for one in judgements]
    scores = [None if one is None else one.score for one in known]
    labels = [None if one is None else one.label for one in known]
    return columns_as_table(ids, categories, groups, samples, scores, labels, states)

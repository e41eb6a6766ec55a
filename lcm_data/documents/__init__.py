"""Reading documents: from files of many formats to one ``Document`` or ``Reject`` a row.

The way through: ``list_inputs`` finds files, ``pieces`` and ``scan`` cut them into slices, ``read`` gives the rows of
a slice, ``resolve_language`` (in ``detect``) finds the language of those that do not say. Cutting texts into
sentences is in ``lcm_data.segment``; units, duplicates across files and output are the planner's.
"""

from lcm_data.documents.inputs import InputFile, Inputs, list_inputs
from lcm_data.documents.model import REASONS, Columns, Document, ReadOptions, Reason, Reject
from lcm_data.documents.slices import READERS, Piece, ScannedSlice, Slice, number_rows, pieces, read, scan

__all__ = [
    "READERS",
    "REASONS",
    "Columns",
    "Document",
    "InputFile",
    "Inputs",
    "Piece",
    "ReadOptions",
    "Reason",
    "Reject",
    "ScannedSlice",
    "Slice",
    "list_inputs",
    "number_rows",
    "pieces",
    "read",
    "scan",
]

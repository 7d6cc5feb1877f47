import pyarrow as pa
import pytest

from ropewalk.schemas import tables, testing
from ropewalk.schemas.conform import SchemaMismatch, conform


def test_all_faults_are_listed_at_once():
    batch = testing.documents(3).drop_columns("url")
    batch = batch.set_column(1, "text", batch.column("text").cast(pa.string()))
    with pytest.raises(SchemaMismatch) as fault:
        conform(batch, tables.DOCUMENTS, table="documents")
    assert "'text' is string, expected large_string" in str(fault.value)
    assert "'url' is missing" in str(fault.value)
    assert "3 rows" in str(fault.value)


def test_forbidden_nulls_are_named():
    batch = testing.documents(3)
    ids = pa.array([None, "a", "b"])
    with pytest.raises(SchemaMismatch, match="'id' has 1 nulls"):
        conform(batch.set_column(0, pa.field("id", pa.string()), ids), tables.DOCUMENTS, table="documents")


def test_wider_batches_are_narrowed_and_ordered():
    batch = testing.documents(3)
    shuffled = pa.RecordBatch.from_pydict({name: batch.column(name) for name in reversed(batch.schema.names)})
    wider = shuffled.append_column("extra", pa.array([1, 2, 3]))
    assert conform(wider, tables.DOCUMENTS, table="documents").equals(batch)


def test_column_names_are_disjoint_so_that_tables_can_be_joined():
    names = [name for schema in (tables.DOCUMENTS, *tables.COLUMNS.values()) for name in schema.names]
    assert len(names) == len(set(names))


def test_numbers_state_their_unit():
    for schema in (tables.DOCUMENTS, *tables.COLUMNS.values(), tables.SEQUENCES, tables.REJECTS):
        for field in schema:
            assert field.metadata[b"about"]
            if field.name.startswith("num_") or field.name.endswith("_size"):
                assert field.metadata[b"unit"]

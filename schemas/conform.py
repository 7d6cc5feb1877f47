"""Checks a batch against a declared schema where it enters a stage, and lists every fault at once."""

import pyarrow as pa


class SchemaMismatch(ValueError):
    """A batch does not have the columns its table promises."""


def conform(batch: pa.RecordBatch, schema: pa.Schema, *, table: str) -> pa.RecordBatch:
    """Returns `batch` with exactly the columns of `schema`, in its order.

    Columns the schema does not name are dropped: a wider batch is a fine input. Null values in a field declared
    `nullable=False` count as a fault.

    Args:
        batch: Any batch.
        schema: The declared schema of the table.
        table: Name of the table, for the message.

    Raises:
        SchemaMismatch: Naming every missing column, wrong type and forbidden null.
    """
    if batch.schema.equals(schema, check_metadata=True):
        present = batch
    else:
        faults = []
        for field in schema:
            index = batch.schema.get_field_index(field.name)
            if index < 0:
                faults.append(f"column {field.name!r} is missing (expected {field.type})")
            elif batch.schema.field(index).type != field.type:
                faults.append(f"column {field.name!r} is {batch.schema.field(index).type}, expected {field.type}")
        if faults:
            raise SchemaMismatch(_message(batch, table, faults))
        present = pa.RecordBatch.from_arrays([batch.column(f.name) for f in schema], schema=schema)
    nulls = [
        f"column {f.name!r} has {present.column(i).null_count} nulls (declared not null)"
        for i, f in enumerate(schema)
        if not f.nullable and present.column(i).null_count
    ]
    if nulls:
        raise SchemaMismatch(_message(batch, table, nulls))
    return present


def _message(batch: pa.RecordBatch, table: str, faults: list[str]) -> str:
    return f"batch of {batch.num_rows} rows is not {table!r}: " + "; ".join(faults)

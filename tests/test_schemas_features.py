"""What we write of a table's columns is what `datasets` would."""

import datasets
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.schemas import tables
from ropewalk.schemas.features import features

SCALARS = [
    pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
    pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.binary(),
    pa.timestamp("ms"), pa.date32(), pa.decimal128(9, 2), pa.duration("s"), pa.binary(4),
]  # fmt: skip
TYPES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        st.tuples(inner, st.integers(1, 9)).map(lambda both: pa.list_(*both)),
        st.lists(inner, min_size=1, max_size=3).map(lambda kinds: pa.struct(list(zip("abc", kinds, strict=False)))),
    ),
    max_leaves=4,
)


@given(kinds=st.lists(TYPES, min_size=1, max_size=3))
@settings(max_examples=100)
def test_any_schema_reads_as_datasets_would_have_it(kinds):
    schema = pa.schema([pa.field(f"c{i}", kind) for i, kind in enumerate(kinds)])
    assert features(schema) == datasets.Features.from_arrow_schema(schema).to_dict()


@pytest.mark.parametrize("name", [name for name in dir(tables) if isinstance(getattr(tables, name), pa.Schema)])
def test_our_tables_read_as_datasets_would_have_them_and_in_its_order(name):
    schema = getattr(tables, name)
    found = features(schema)
    wanted = datasets.Features.from_arrow_schema(schema.remove_metadata()).to_dict()
    assert found == wanted
    assert str(found) == str(wanted)  # the same bytes on disk

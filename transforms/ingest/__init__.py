"""Reading documents: from files of any accepted format to rows of `tables.DOCUMENTS` and dead letters.

`listing` finds the files, `splits` cuts them into equal pieces of work, one shard each. A reader (`json_records`,
`arrow_tables`, `whole_files`) turns a file into `records.Raw` batches; `records` makes documents of them, `rejects`
dead letters; `read` is the Beam side.
"""

"""One definition of each record; the Avro, Arrow and Iceberg schemas derive from it."""

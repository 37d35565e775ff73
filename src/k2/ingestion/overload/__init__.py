"""What the ingest worker does under overload: takes a level, puts records off, gives memory back."""

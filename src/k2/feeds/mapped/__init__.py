"""Files of anybody's: a mapping says which of their columns is which field of a record."""

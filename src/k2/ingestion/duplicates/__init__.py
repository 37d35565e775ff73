"""Duplicates: decided from the table, with memory that tells what may have been stored."""

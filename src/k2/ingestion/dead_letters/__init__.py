"""Messages that cannot become rows: collected, grouped, replayed."""

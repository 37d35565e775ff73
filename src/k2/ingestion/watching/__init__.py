"""What looks at each committed batch and decides nothing: lines of a venue, streams that fall silent."""

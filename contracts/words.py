"""What text may be in a contract, so that every database, mail and log takes it."""

#: No control characters.
PLAIN = r"^[^\x00-\x1f\x7f]*$"

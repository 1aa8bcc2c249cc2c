"""What a service remembers: its tables, its database, and the statements on them."""

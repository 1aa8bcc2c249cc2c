"""The services of the order flow: independent processes that know the contracts, not each other."""

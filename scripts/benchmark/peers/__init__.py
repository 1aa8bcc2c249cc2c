"""The neighbours, each at its best reasonable setting."""

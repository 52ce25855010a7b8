"""How numbers are written: units, digits, a dash for what is absent."""

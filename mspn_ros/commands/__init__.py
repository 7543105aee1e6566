"""The commands of ``mspn``, one function each: they wire the library to the terminal."""

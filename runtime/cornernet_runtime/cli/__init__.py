"""The runtime's command lines: parse, build the arguments, call one importable function."""

"""The command line: one file per command. Parses, wires, loops over events, chooses exit codes."""

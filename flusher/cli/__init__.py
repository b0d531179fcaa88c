"""The command `taximeter`: one module per command, each imported only when it is the one that was asked for."""

"""What `taximeter bench` measures: us beside ceilings and peers, in short rounds in turn, so that noise meets all."""

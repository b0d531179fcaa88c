"""`taximeter chaos`: everything is killed, stopped, wiped and taken back in time, and every event still counts once."""
